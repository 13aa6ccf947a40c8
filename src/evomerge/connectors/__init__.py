"""Reach models: a provider's HTTP API, one file each, or a local model through torch."""
