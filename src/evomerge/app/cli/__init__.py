"""The command line."""

from evomerge.app.cli.root import app, main

__all__ = ["app", "main"]
