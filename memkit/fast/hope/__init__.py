"""HOPE in torch, small and tested against its equations: self-modifying Titans, the continuum memory system, M3.

Imported by whoever asks for it, never by `import memkit`: these modules import torch at once.
"""
