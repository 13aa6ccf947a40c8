"""Finished merges as models that answer."""
