"""How well memkit recalls, measured: `python -m benchmarks.recall --help`."""
