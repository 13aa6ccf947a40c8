"""Errors of evaluation, one tree, and the values that name a bad row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class EvaluationError(Exception):
    """Root of everything this package raises."""


class InvalidArgumentError(EvaluationError, ValueError):
    """An argument is outside its range; names the field and the value."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}={short(value)}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason


class MetricError(InvalidArgumentError):
    """A metric is unknown, or does not suit the examples."""


class MissingLibraryError(EvaluationError):
    """An optional library is not installed; names it and the extra that brings it."""

    def __init__(self, library: str, purpose: str, extra: str = "local") -> None:
        install = f"pip install 'evo-merging[{extra}]'"
        super().__init__(f"{purpose} needs {library}, which is not installed: {install}")
        self.library = library


@dataclass(frozen=True)
class RowError:
    """What is wrong with one row.

    Attributes:
        row: its number in the file, from 1; None where the file as a whole is wrong.
        field: the field at fault; None where the row as a whole is wrong.
        message: what is wrong, with a short form of the bad value.
    """

    row: int | None
    field: str | None
    message: str

    def __str__(self) -> str:
        where = [] if self.row is None else [f"row {self.row}"]
        return ": ".join([*where, *([self.field] if self.field else []), self.message])


class DatasetError(EvaluationError, ValueError):
    """A dataset was refused.

    Attributes:
        errors: what is wrong, in the order of the rows.
        complete: whether these are all; False where reading stopped at the limit of errors.
    """

    def __init__(self, errors: Sequence[RowError], *, complete: bool = True) -> None:
        rest = "" if complete else "; there may be more"
        super().__init__("; ".join(str(error) for error in errors) + rest)
        self.errors = tuple(errors)
        self.complete = complete


def short(value: object, limit: int = 60) -> str:
    """The value as Python writes it, cut to about `limit` characters."""
    whole = value[: limit + 1] if isinstance(value, str | bytes | list | tuple) else value
    written = repr(whole)
    return written if len(written) <= limit else written[:limit] + "…"
