"""Errors of forests, one tree."""

from __future__ import annotations

from pathlib import Path

from evomerge.evaluation.errors import short


class ForestError(Exception):
    """Root of everything that merging/forest raises."""


class LogProbsError(ForestError, ValueError):
    """Log-probabilities have another shape than they must, or no probability's value."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class ArgumentError(ForestError, ValueError):
    """An argument is outside its range; names the field and the value."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}={short(value)}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason


class WeightsError(ArgumentError):
    """Weights of ELMs are no distribution over them; names the field and the weights."""


class TopKError(ArgumentError):
    """So many ELMs cannot be kept of these; names k."""

    def __init__(self, k: object, elms: int) -> None:
        super().__init__("top_k", k, f"must be a whole number from 1 to {elms}, the number of ELMs")
        self.elms = elms


class ClusterError(ArgumentError):
    """Documents cannot be clustered as asked."""


class RouterFileError(ForestError, ValueError):
    """A stored router cannot be read; names the file and why."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason
