"""What a job goes on with, where a budget ended the asking before every answer was there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class Complete:
    """A part of the answers without a gap.

    Attributes:
        experts: their places, in the order of the pool.
        examples: (n,) bool, those that each of the experts was asked about.
    """

    experts: tuple[int, ...]
    examples: BoolArray

    @property
    def answers(self) -> int:
        return len(self.experts) * int(self.examples.sum())


def complete(asked: BoolArray, needed: Sequence[slice]) -> Complete | None:
    """The part that keeps the most answers: first the experts that were asked most are taken.

    One expert alone is no merge: it is taken only where no two were asked about the same.

    Args:
        asked: (N, n), whether an expert was asked about an example.
        needed: examples of which each at least one has to be kept.

    Returns:
        Of parts that keep as many answers the one with the most experts; None where no expert was
        asked about one example of each kind that is needed.
    """
    useful = np.flatnonzero([all(row[part].any() for part in needed) for row in asked])
    order = useful[np.argsort(-asked[useful].sum(axis=1), kind="stable")]
    found: Complete | None = None
    for count in range(len(order), 0, -1):
        experts = sorted(order[:count].tolist())
        examples = np.asarray(asked[experts].all(axis=0))
        if not all(examples[part].any() for part in needed):
            continue
        part = Complete(tuple(experts), examples)
        if found is None or (count > 1 and part.answers > found.answers):
            found = part
    return found
