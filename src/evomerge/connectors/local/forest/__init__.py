"""Ensembles of a forest's ELMs that run in this process."""
