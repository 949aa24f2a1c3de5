"""The slow bands inside a language model: what the log says, and how people write, in slots beside its weights."""
