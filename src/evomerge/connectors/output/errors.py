"""Errors of asking for outputs, one tree."""

from __future__ import annotations

from evomerge.connectors.base import ConnectorError


class OutputTaskError(ConnectorError, ValueError):
    """A task cannot be put to an expert, or its settings are out of range."""


class TaskSettingError(OutputTaskError):
    """A setting of the task is out of range; names the field and the value."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}={value!r}: {reason}")
        self.field = field
        self.value = value


class ExpertUnableError(OutputTaskError):
    """An expert's API does not give what the task needs; names the expert."""

    def __init__(self, expert: str, reason: str) -> None:
        super().__init__(f"expert {expert!r} {reason}")
        self.expert = expert
        self.reason = reason


class TokenisationError(OutputTaskError):
    """Experts cut a text into different tokens, whose probabilities cannot be mixed."""

    def __init__(self, expert: str, first: str, row: int) -> None:
        super().__init__(
            f"expert {expert!r} cuts row {row} into other tokens than {first!r}: only experts of "
            "one tokenizer can be mixed token by token"
        )
        self.expert = expert
        self.first = first
        self.row = row
