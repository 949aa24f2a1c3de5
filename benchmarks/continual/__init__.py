"""Facts that a frozen language model learns one batch after another."""
