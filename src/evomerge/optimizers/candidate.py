"""What the search proposes: how much of each expert to keep, and with what signed weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Candidate:
    """One point of the search space (Evo-Merging, section 3).

    Attributes:
        alpha: (groups, experts) float64 in [0, 1], the fraction of each expert to keep.
        beta: (groups, experts) float64, the signed weight of each expert.

    Groups are layer groups, ordered from the first layer to the last; one unless a job asks
    for more.
    """

    alpha: FloatArray
    beta: FloatArray

    @property
    def groups(self) -> int:
        return int(self.alpha.shape[0])

    @property
    def experts(self) -> int:
        return int(self.alpha.shape[1])

    def agrees(self, other: Candidate) -> bool:
        """Whether both are the same point, up to what another BLAS kernel may change."""
        return (
            self.alpha.shape == other.alpha.shape
            and np.allclose(self.alpha, other.alpha, rtol=1e-9, atol=1e-12)
            and np.allclose(self.beta, other.beta, rtol=1e-9, atol=1e-12)
        )


def base(experts: int, groups: int = 1) -> Candidate:
    """The base model alone: every weight zero."""
    return Candidate(np.ones((groups, experts)), np.zeros((groups, experts)))


def one_hot(expert: int, experts: int, groups: int = 1) -> Candidate:
    """Expert number `expert` alone, whole, with weight one."""
    beta = np.zeros((groups, experts))
    beta[:, expert] = 1.0
    return Candidate(np.ones((groups, experts)), beta)


def uniform(experts: int, groups: int = 1) -> Candidate:
    """The uniform average: every expert whole, with weight 1/N."""
    return Candidate(np.ones((groups, experts)), np.full((groups, experts), 1.0 / experts))
