"""What an adapter says when its framework is not installed."""

from __future__ import annotations


def missing(extra: str, error: ImportError) -> ImportError:
    """The error to raise from `error`: it names the package that is missing and the extra that brings it."""
    name = error.name or str(error)
    return ImportError(f'{name} is not installed; run: pip install "memkit-ai[{extra}]"', name=error.name)
