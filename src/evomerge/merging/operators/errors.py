"""Errors of the merging operators."""

from __future__ import annotations


class OperatorError(ValueError):
    """A root for what an operator refuses."""


class OperatorSettingError(OperatorError):
    """A setting that makes no sense; names it and its value."""

    def __init__(self, name: str, value: object, rule: str) -> None:
        super().__init__(f"{name}={value!r}: {rule}")
        self.name = name
        self.value = value


class StackError(OperatorError):
    """Task vectors and weights that do not belong together."""
