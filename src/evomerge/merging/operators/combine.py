"""How task vectors become one: a weighted sum, a mean of those that agree, or what EMR elects."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from evomerge.merging.operators.errors import OperatorSettingError, StackError

Election = Literal["total", "frequency"]


def weighted_sum(stack: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_i tau_i (task arithmetic, arXiv 2212.04089).

    Args:
        stack: (N, ...).
        weights: (N,).

    Raises:
        StackError: there is not one weight for each of at least one task vector.
    """
    return (stack * _beside(stack, weights)).sum(dim=0)


def elected_mean(stack: Tensor, weights: Tensor, election: Election = "total") -> Tensor:
    """The mean of the weighted entries whose sign was elected (TIES, arXiv 2306.01708, step 3).

    The sign of an entry is elected by the weighted task vectors, so that a negative weight votes
    for what it means: by the sign of their sum ("total"), or by the number of positive against
    negative ones ("frequency"); nobody's majority counts as positive. PEFT elects before it
    weights, which is the same where all weights are equal and positive.

    Args:
        stack: (N, ...), trimmed.
        weights: (N,).

    Returns:
        (...); 0 where nobody has the elected sign.

    Raises:
        OperatorSettingError: there is no such election.
        StackError: as `weighted_sum`.
    """
    if election not in ("total", "frequency"):
        raise OperatorSettingError("election", election, "must be 'total' or 'frequency'")
    weighted = stack * _beside(stack, weights)
    signs = weighted.sign()
    votes = weighted if election == "total" else signs
    elected = torch.where(votes.sum(dim=0) >= 0, 1.0, -1.0).to(stack.dtype)
    agrees = signs == elected
    return (weighted * agrees).sum(dim=0) / agrees.sum(dim=0).clamp_min(1)


def elected_largest(stack: Tensor) -> Tensor:
    """The unified task vector of EMR-Merging (arXiv 2405.17461, "elect").

    Each entry has the sign of the sum, and the largest magnitude that any task vector has with
    that sign; 0 where the sum is 0.

    Args:
        stack: (N, ...), N at least 1.

    Raises:
        StackError: there is no task vector.
    """
    if stack.ndim < 1 or stack.shape[0] == 0:
        raise StackError("no task vector to merge")
    sign = stack.sum(dim=0).sign()
    return sign * (stack * sign).clamp_min(0).amax(dim=0)


def task_masks(stack: Tensor, unified: Tensor) -> tuple[Tensor, Tensor]:
    """What makes a unified task vector an expert's own again (EMR-Merging, "mask, rescale").

    Args:
        stack: (N, ...).
        unified: (...), of `elected_largest`.

    Returns:
        masks (N, ...) bool, where an expert agrees in sign; rescalers (N,), by which the masked
        vector has the mean magnitude of the expert's own (0 where nothing agrees).
    """
    masks = stack * unified > 0
    own = stack.abs().flatten(1).sum(dim=1)
    left = (masks * unified.abs()).flatten(1).sum(dim=1)
    return masks, torch.where(left > 0, own / left.clamp_min(torch.finfo(left.dtype).tiny), 0.0)


def _beside(stack: Tensor, weights: Tensor) -> Tensor:
    """Weights in the shape that multiplies a stack."""
    if stack.ndim < 1 or stack.shape[0] == 0 or weights.shape != stack.shape[:1]:
        raise StackError(
            f"weights of shape {tuple(weights.shape)} for task vectors of shape "
            f"{tuple(stack.shape)}: must be one for each of at least one"
        )
    return weights.to(stack.dtype).view(-1, *(1 for _ in stack.shape[1:]))
