"""How jobs over forests take the posterior of their domain from the rows of the search."""

from __future__ import annotations

import numpy as np

from evomerge.merging.forest.prior import LIMIT
from evomerge.optimizers import FloatArray

# Starts of a search are rounded, so that a machine which computes the posterior a hair
# differently still begins, and so repeats, the same search.
_DECIMALS = 3


def sample(examples: int, seed: int) -> list[int]:
    """Places of the rows that it is estimated on: of all datasets, in an order of the seed's."""
    order: list[int] = np.random.default_rng(seed).permutation(examples)[:LIMIT].tolist()
    return order


def rounded(posterior: FloatArray) -> FloatArray:
    """The posterior (N,) as the start of a search."""
    start: FloatArray = np.round(posterior, _DECIMALS)
    return start
