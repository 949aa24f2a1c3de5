"""What a memory attached to a language model does: reading, facts, speed."""
