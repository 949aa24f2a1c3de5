"""The .mem file and its search index: the log, what is derived from it, and nothing that learns.

Start at `store.Store` (what a file holds) and `index.Index` (how it is searched); docs/format.md is the file's spec.
"""
