"""Propose candidates. Ask/tell over numpy and cma; no I/O, no torch, no HTTP, no database."""
