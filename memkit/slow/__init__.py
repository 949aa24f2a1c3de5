"""Tier 3: what the log taught, consolidated while nobody waits: replayed, gated, and taken back on request."""
