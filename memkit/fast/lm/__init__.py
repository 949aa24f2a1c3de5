"""The fast tier inside a causal language model: fast weights beside its own, which stay as they are."""
