"""The seeded cut of a dataset into what the search sees and what it is proven on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.example import Example


@dataclass(frozen=True)
class Split:
    """Two disjoint sides of a dataset; no prompt stands on both."""

    search: tuple[Example, ...]
    held_out: tuple[Example, ...]


def split(
    examples: Sequence[Example],
    held_out: float,
    seed: int,
    search_limit: int | None = None,
    held_out_limit: int | None = None,
) -> Split:
    """Cut a dataset in two.

    Rows of one prompt (raw text: of one text) form a group and stay together. Groups are put
    in the order of a hash of seed and prompt, so that the cut depends on no random generator
    and on no order of rows, and both sides are shuffled; in that order each group is held out
    while that brings the held-out rows closer to their share. Limits keep the first rows of a
    side: a larger limit keeps all rows of a smaller one.

    Args:
        examples: at least two, with at least two different prompts.
        held_out: share of the rows to hold out, 0 < held_out < 1; each side gets a group even
            where the share rounds to none.
        seed: any integer from 0.
        search_limit, held_out_limit: rows of a side at most; None for all.

    Raises:
        InvalidArgumentError: an argument is out of range, or both sides cannot be filled.
    """
    _check(examples, held_out, seed, search_limit, held_out_limit)
    groups = _groups(examples, seed)
    if len(groups) < 2:
        raise InvalidArgumentError(
            "examples",
            len(examples),
            "all rows have the same prompt, which cannot be searched on and held out",
        )
    kept, out = _divide(groups, held_out * len(examples))
    return Split(
        search=tuple(example for group in kept for example in group)[:search_limit],
        held_out=tuple(example for group in out for example in group)[:held_out_limit],
    )


def _check(
    examples: Sequence[Example],
    held_out: float,
    seed: int,
    search_limit: int | None,
    held_out_limit: int | None,
) -> None:
    if len(examples) < 2:
        raise InvalidArgumentError(
            "examples", len(examples), "at least two rows are needed, one for each side"
        )
    if not (math.isfinite(held_out) and 0 < held_out < 1):
        raise InvalidArgumentError("held_out", held_out, "must lie between 0 and 1")
    if seed < 0:
        raise InvalidArgumentError("seed", seed, "must be at least 0")
    for field, limit in (("search_limit", search_limit), ("held_out_limit", held_out_limit)):
        if limit is not None and limit < 1:
            raise InvalidArgumentError(field, limit, "must be at least 1")


def _groups(examples: Sequence[Example], seed: int) -> list[list[Example]]:
    """Rows by prompt, in the order that the seed gives."""
    groups: dict[bytes, list[Example]] = {}
    for example in examples:
        asked = example.prompt or example.completion
        key = sha256(f"{seed}:{asked}".encode()).digest()
        groups.setdefault(key, []).append(example)
    return [groups[key] for key in sorted(groups)]


def _divide(
    groups: list[list[Example]], target: float
) -> tuple[list[list[Example]], list[list[Example]]]:
    kept: list[list[Example]] = []
    out: list[list[Example]] = []
    held = 0
    for group in groups:
        if held + len(group) / 2 <= target:
            out.append(group)
            held += len(group)
        else:
            kept.append(group)
    for empty, full in ((out, kept), (kept, out)):
        if not empty:
            smallest = min(full, key=len)
            full.remove(smallest)
            empty.append(smallest)
    return kept, out
