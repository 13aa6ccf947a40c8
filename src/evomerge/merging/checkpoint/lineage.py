"""Where an ELM comes from: its seed, its parents and what it was trained on (elm.json)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from evomerge.merging.checkpoint.errors import LineageFileError

LINEAGE_FILE = "elm.json"
OptimizerPolicy = Literal["reset", "continue"]

_FORMAT = 1


@dataclass(frozen=True)
class Parent:
    """One of the ELMs that an ELM's first weights were made of.

    Attributes:
        content_hash: of its folder.
        weight: its share.
    """

    content_hash: str
    weight: float


@dataclass(frozen=True)
class Lineage:
    """The content of elm.json.

    Attributes:
        seed_hash: content hash of the seed that all of the forest come from; None for a seed.
        domain: that it was trained on; None for a mixture of several.
        parents: whose weights it began with; none for a seed.
        tokens: seen since the random start, the seed's included; 0 where nobody knows.
        own_tokens: seen in its own phase of training.
        corpus_hash: of the documents of that phase.
        optimizer: whether its optimizer went on from its parent's state; None without training.
    """

    seed_hash: str | None = None
    domain: str | None = None
    parents: tuple[Parent, ...] = ()
    tokens: int = 0
    own_tokens: int = 0
    corpus_hash: str | None = None
    optimizer: OptimizerPolicy | None = None

    def root(self, content_hash: str) -> str:
        """The content hash of the seed, given that of the ELM itself."""
        return self.seed_hash or content_hash


def read_lineage(folder: Path) -> Lineage:
    """What a checkpoint says about where it comes from.

    A checkpoint without elm.json is a seed.

    Raises:
        LineageFileError: the file is damaged, of another format, or a field is not of its type.
    """
    file = folder / LINEAGE_FILE
    if not file.is_file():
        return Lineage()
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LineageFileError(file, f"is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise LineageFileError(file, f"is not of format {_FORMAT}")
    return _Reader(file, content).lineage()


def write_lineage(folder: Path, lineage: Lineage) -> None:
    """Write elm.json into a checkpoint's folder; a file that is there is replaced as a whole.

    Raises:
        OSError: the system refuses.
    """
    content = {"format": _FORMAT, **asdict(lineage)}
    fresh = folder / f".{LINEAGE_FILE}.new"
    with fresh.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    fresh.rename(folder / LINEAGE_FILE)


def merged_lineage(
    seed_hash: str, members: Sequence[Lineage], hashes: Sequence[str], weights: Sequence[float]
) -> Lineage:
    """The lineage of a weighted sum of ELMs of one seed, which was not trained itself.

    Its tokens are the members', weighted by the share of each weight's size, so that one ELM
    alone keeps its number.

    Args:
        seed_hash: of the seed they share.
        members, hashes: the ELMs and their content hashes.
        weights: theirs; those of weight 0 are no parents.
    """
    sizes = [abs(weight) for weight in weights]
    total = sum(sizes)
    tokens = sum(size * elm.tokens for size, elm in zip(sizes, members, strict=True))
    return Lineage(
        seed_hash=seed_hash,
        parents=tuple(
            Parent(content_hash, float(weight))
            for content_hash, weight in zip(hashes, weights, strict=True)
            if weight
        ),
        tokens=round(tokens / total) if total else 0,
    )


class _Reader:
    """Takes the fields of elm.json, each of its type."""

    def __init__(self, file: Path, content: dict[str, Any]) -> None:
        self._file = file
        self._content = content

    def lineage(self) -> Lineage:
        unknown = sorted(set(self._content) - {"format", *(each.name for each in fields(Lineage))})
        if unknown:
            raise LineageFileError(self._file, f"has the unknown field {unknown[0]!r}")
        return Lineage(
            seed_hash=self._text("seed_hash"),
            domain=self._text("domain"),
            parents=self._parents(),
            tokens=self._count("tokens"),
            own_tokens=self._count("own_tokens"),
            corpus_hash=self._text("corpus_hash"),
            optimizer=self._optimizer(),
        )

    def _text(self, field: str) -> str | None:
        value = self._content.get(field)
        if value is not None and (not isinstance(value, str) or not value):
            raise self._wrong(field, value, "must be a text or null")
        return value

    def _count(self, field: str) -> int:
        value = self._content.get(field, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._wrong(field, value, "must be a whole number of at least 0")
        return value

    def _optimizer(self) -> OptimizerPolicy | None:
        value = self._content.get("optimizer")
        if value is not None and value not in get_args(OptimizerPolicy):
            raise self._wrong("optimizer", value, "must be reset, continue or null")
        policy: OptimizerPolicy | None = value
        return policy

    def _parents(self) -> tuple[Parent, ...]:
        value = self._content.get("parents", [])
        try:
            return tuple(Parent(str(each["content_hash"]), float(each["weight"])) for each in value)
        except (TypeError, KeyError, ValueError) as error:
            raise self._wrong("parents", value, "must list content_hash and weight") from error

    def _wrong(self, field: str, value: object, reason: str) -> LineageFileError:
        return LineageFileError(self._file, f"{field}={value!r}: {reason}")
