"""The merging rules by name: frozen values that merge one tensor.

A rule means a candidate's alpha as densities and its beta as weights, so that what a search or a
grid proposes is the same thing for every composition. The published settings are a density and a
scale for all experts alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from evomerge.merging.operators.combine import (
    Election,
    elected_largest,
    elected_mean,
    task_masks,
    weighted_sum,
)
from evomerge.merging.operators.trim import (
    drop_by_rank,
    drop_outliers,
    drop_random,
    keep_largest,
)


class Rule(Protocol):
    """Merges the task vectors of one tensor."""

    name: ClassVar[str]

    def merge(
        self, stack: Tensor, density: Tensor, weights: Tensor, generator: torch.Generator
    ) -> Tensor:
        """(N, ...), of the experts that take part, to (...).

        Args:
            density: (N,) in [0, 1], what is kept of each expert, where the rule drops anything.
            weights: (N,) of the experts.
            generator: of the random draws, for rules that draw; tensors are to come in one order.

        Raises:
            OperatorError: the settings or the stack make no sense.
        """
        ...


@dataclass(frozen=True)
class TaskArithmetic:
    """sum_i w_i tau_i (arXiv 2212.04089)."""

    name: ClassVar[str] = "task_arithmetic"

    def merge(
        self, stack: Tensor, density: Tensor, weights: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See `Rule.merge`; nothing is dropped."""
        return weighted_sum(stack, weights)


@dataclass(frozen=True)
class Ties:
    """Trim by magnitude, elect signs, mean of those that agree (arXiv 2306.01708)."""

    election: Election = "total"
    name: ClassVar[str] = "ties"

    def merge(
        self, stack: Tensor, density: Tensor, weights: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See `Rule.merge`."""
        return elected_mean(keep_largest(stack, density), weights, self.election)


@dataclass(frozen=True)
class DareLinear:
    """Drop at random, rescale, weighted sum (arXiv 2311.03099)."""

    name: ClassVar[str] = "dare_linear"

    def merge(
        self, stack: Tensor, density: Tensor, weights: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See `Rule.merge`."""
        return weighted_sum(drop_random(stack, density, generator), weights)


@dataclass(frozen=True)
class DareTies:
    """Drop at random and rescale, then the sign election and mean of TIES."""

    election: Election = "total"
    name: ClassVar[str] = "dare_ties"

    def merge(
        self, stack: Tensor, density: Tensor, weights: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See `Rule.merge`."""
        return elected_mean(drop_random(stack, density, generator), weights, self.election)


@dataclass(frozen=True)
class Della:
    """Drop by rank of magnitude, elect signs, mean of those that agree (arXiv 2406.11617)."""

    epsilon: float = 0.1
    election: Election = "total"
    name: ClassVar[str] = "della"

    def merge(
        self, stack: Tensor, density: Tensor, weights: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See `Rule.merge`."""
        trimmed = drop_by_rank(stack, density, self.epsilon, generator)
        return elected_mean(trimmed, weights, self.election)


@dataclass(frozen=True)
class Breadcrumbs:
    """Drop outliers and the small, weighted sum (arXiv 2312.06795)."""

    gamma: float = 0.01
    name: ClassVar[str] = "breadcrumbs"

    def merge(
        self, stack: Tensor, density: Tensor, weights: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See `Rule.merge`."""
        return weighted_sum(drop_outliers(stack, density, self.gamma), weights)


@dataclass(frozen=True)
class Emr:
    """The unified task vector of EMR-Merging, rescaled (arXiv 2405.17461).

    EMR keeps a mask and a rescaler for each task and puts one of them on at inference. One model
    for everything can have none on; it takes the weighted sum of the rescalers over the number
    of experts.
    """

    name: ClassVar[str] = "emr"

    def merge(
        self, stack: Tensor, density: Tensor, weights: Tensor, generator: torch.Generator
    ) -> Tensor:
        """See `Rule.merge`; nothing is dropped."""
        unified = elected_largest(stack)
        _, rescalers = task_masks(stack, unified)
        return weighted_sum(rescalers[:, None], weights / len(weights)) * unified
