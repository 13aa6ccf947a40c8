"""Errors of ensembles that run, below those of the local models."""

from __future__ import annotations

from pathlib import Path

from evomerge.connectors.local.errors import LocalModelError


class EnsembleError(LocalModelError):
    """Root of everything that connectors/local/forest raises."""


class ElmMismatchError(EnsembleError, ValueError):
    """Two ELMs cannot be mixed token by token; names both and what differs."""

    def __init__(self, elm: str, other: str, what: str) -> None:
        super().__init__(f"ELM {elm!r} has another {what} than {other!r}: they cannot be mixed")
        self.elm = elm
        self.other = other


class ElmChangedError(EnsembleError):
    """An ELM's files are no longer those that its hash was taken of."""

    def __init__(self, elm: str, folder: Path) -> None:
        super().__init__(f"ELM {elm!r}: the files in {folder} have changed")
        self.elm = elm
        self.folder = folder


class ElmsTooLargeError(EnsembleError):
    """ELMs that must be in memory together do not fit; names both sizes."""

    def __init__(self, elms: int, needed: int, limit: int) -> None:
        super().__init__(
            f"{elms} ELMs take {needed} bytes together, {limit} are allowed: run fewer of them "
            "(a static top_k), or allow more"
        )
        self.needed = needed
        self.limit = limit


class BrokenElmError(EnsembleError):
    """An ELM gives NaN."""

    def __init__(self, elm: str) -> None:
        super().__init__(f"ELM {elm!r} gives NaN: its weights are broken")
        self.elm = elm


class LogProbCacheError(EnsembleError):
    """A file of cached log-probabilities cannot be used; names it and why."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}; delete it and it is made anew")
        self.file = file
