"""The fast tier: state in embedding space that changes with each feedback."""
