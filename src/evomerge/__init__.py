"""Evo-Merging: merge language models you may not be able to see inside."""

from evomerge.version import __version__

__all__ = ["__version__"]
