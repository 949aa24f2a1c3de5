"""The slow band inside a language model: facts of the log in slots beside its weights, opened by their subject."""
