"""Errors of the output space, one tree."""

from __future__ import annotations

from evomerge.evaluation.errors import short


class OutputError(Exception):
    """Root of everything that merging/output raises."""


class EvidenceError(OutputError, ValueError):
    """Evidence cannot be fused: an array of another shape or with values out of range."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class PopulationError(OutputError, ValueError):
    """alpha or beta of a population does not fit the experts; names the array."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"candidates' {field}: {reason}")
        self.field = field
        self.reason = reason


class FusionMetricError(OutputError, ValueError):
    """No fusion measures this metric on rows of this kind."""

    def __init__(self, metric: str, reason: str) -> None:
        super().__init__(f"metric={metric!r}: {reason}")
        self.metric = metric
        self.reason = reason


class StoredMergeError(OutputError, ValueError):
    """What is stored is no output merge; names the field and the value."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}={short(value)}: {reason}")
        self.field = field
        self.value = value
