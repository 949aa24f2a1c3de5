"""What the modules of `memkit.fast.hope` and the update rules can do, beside the usual methods."""
