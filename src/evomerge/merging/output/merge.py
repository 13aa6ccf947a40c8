"""A finished output merge: what serving needs, as plain JSON without secrets."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, get_args

import numpy as np

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.choice import HEAD
from evomerge.merging.output.errors import PopulationError, StoredMergeError
from evomerge.merging.output.fusion import BoolArray, FusionKind, checked, kept
from evomerge.merging.output.items import AnswerFormat

_VERSION = 1


@dataclass(frozen=True)
class OutputMerge:
    """The winner of a search in the output space.

    Attributes:
        kind: which fusion it is for.
        metric: what it was searched by.
        experts: names, in the order of alpha and beta.
        alpha, beta: (N,) numbers.
        threshold: of extraction, from `Fusion.fit` on the search examples; None for other kinds.
        head: of choices.
        answer_format: of extraction, how items are written.
        choices: the options that all rows of the data set share; None where they do not.

    Raises:
        StoredMergeError: values that do not fit each other or are out of range.
    """

    kind: FusionKind
    metric: str
    experts: tuple[str, ...]
    alpha: tuple[float, ...]
    beta: tuple[float, ...]
    threshold: float | None = None
    head: float = HEAD
    answer_format: AnswerFormat = "semicolons"
    choices: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _require("kind", self.kind, self.kind in get_args(FusionKind), "is no kind of fusion")
        try:
            checked(*self._rows, len(self.experts))
        except PopulationError as error:
            raise StoredMergeError(error.field, getattr(self, error.field), error.reason) from error
        fitted = self.threshold is not None
        needed = self.kind == "extraction"
        _require("threshold", self.threshold, fitted == needed, "is for extraction, and only that")
        in_range = self.threshold is None or 0 < self.threshold <= 1
        _require("threshold", self.threshold, in_range, "must lie in (0, 1]")
        _require("head", self.head, 0 <= self.head <= 1, "must lie in [0, 1]")
        known = self.answer_format in get_args(AnswerFormat)
        _require("answer_format", self.answer_format, known, "is no format")

    @property
    def kept(self) -> BoolArray:
        """Which experts are called, (N,) bool."""
        alpha, beta = self._rows
        # A mixture cannot subtract, see `MixtureFusion`.
        weights = np.maximum(beta, 0.0) if self.kind == "scored_text" else beta
        called: BoolArray = kept(alpha, weights)[0]
        return called

    @property
    def _rows(self) -> tuple[FloatArray, FloatArray]:
        return np.array([self.alpha], np.float64), np.array([self.beta], np.float64)

    def to_json(self) -> dict[str, Any]:
        """As stored; finite numbers, strings and lists only."""
        listed = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }
        return {"version": _VERSION, **listed}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `to_json` gave, read back.

        Raises:
            StoredMergeError: a field is missing, of another type or out of range.
        """
        version = stored.get("version")
        _require("version", version, version == _VERSION, f"must be {_VERSION}")
        for field, accepts in _FIELDS.items():
            value = stored.get(field)
            _require(field, value, field in stored and accepts(value), "is missing or malformed")
        found = {field: stored[field] for field in _FIELDS}
        listed: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in found.items()
        }
        return cls(**listed)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _list(accepts: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(accepts(one) for one in value)


def _maybe(accepts: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or accepts(value)


_FIELDS: Mapping[str, Callable[[object], bool]] = {
    "kind": _text,
    "metric": _text,
    "experts": _list(_text),
    "alpha": _list(_number),
    "beta": _list(_number),
    "threshold": _maybe(_number),
    "head": _number,
    "answer_format": _text,
    "choices": _maybe(_list(_text)),
}


def _require(field: str, value: object, holds: bool, reason: str) -> None:
    if not holds:
        raise StoredMergeError(field, value, reason)
