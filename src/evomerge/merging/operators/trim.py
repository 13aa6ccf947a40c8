"""What is left of a task vector: four ways to thin it out, one row an expert.

All take a stack (N, ...) and the fraction of each expert that is kept, density (N,) in [0, 1],
and return a stack of the same shape and dtype. A density of 1 keeps an expert as it is (but see
`drop_outliers`), a density of 0 drops it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from evomerge.merging.operators.errors import OperatorSettingError, StackError


def keep_largest(stack: Tensor, density: Tensor) -> Tensor:
    """Keep the floor(density * numel) entries of largest magnitude (TIES, arXiv 2306.01708).

    Ties go to the entry that comes first. TIES trims over the whole model; like PEFT and mergekit
    this trims each tensor alone, which needs no second pass over the weights.

    Raises:
        OperatorSettingError: a density is outside of [0, 1].
        StackError: the stack is empty, or has not one density an expert.
    """
    kept = _column(stack, density)
    rows = stack.flatten(1)
    return (rows * (_places(rows) < (kept * rows.shape[1]).floor())).view_as(stack)


def drop_random(stack: Tensor, density: Tensor, generator: torch.Generator) -> Tensor:
    """Keep each entry with probability `density`, divided by it (DARE, arXiv 2311.03099).

    The expectation of every entry stays what it was.

    Raises:
        OperatorSettingError, StackError: as `keep_largest`.
    """
    likely = _column(stack, density).to(torch.float32).expand(-1, stack[0].numel())
    return _drawn(stack.flatten(1), likely, generator).view_as(stack)


def drop_by_rank(
    stack: Tensor, density: Tensor, epsilon: float, generator: torch.Generator
) -> Tensor:
    """Keep large entries more likely than small ones (MAGPRUNE of DELLA, arXiv 2406.11617).

    Within each row of a tensor (the last axis) the entry of rank r out of n, by rising magnitude,
    is kept with probability density - e + 2 e r / (n - 1) and divided by it; e is epsilon, or
    what leaves probabilities in [0, 1] where that is less.

    Raises:
        OperatorSettingError: as `keep_largest`, or epsilon is negative.
        StackError: as `keep_largest`.
    """
    if epsilon < 0.0:
        raise OperatorSettingError("epsilon", epsilon, "must not be negative")
    middle = _column(stack, density).to(torch.float32)
    spread = torch.minimum(middle, 1.0 - middle).clamp_max(epsilon)
    rows = stack.reshape(stack.shape[0], -1, stack.shape[-1])
    rank = rows.abs().argsort(dim=-1, stable=True).argsort(dim=-1).float()
    slope = 2.0 * rank / max(rows.shape[-1] - 1, 1) - 1.0
    likely = (middle[..., None] + spread[..., None] * slope).clamp(0.0, 1.0)
    return _drawn(rows, likely, generator).view_as(stack)


def drop_outliers(stack: Tensor, density: Tensor, gamma: float) -> Tensor:
    """Drop the gamma largest and the smallest entries (Model Breadcrumbs, arXiv 2312.06795).

    Of an expert's n entries by falling magnitude the first floor(gamma n) are dropped, the next
    floor(density n) are kept (fewer where there are no more), the rest is dropped.

    Raises:
        OperatorSettingError: as `keep_largest`, or gamma is outside of [0, 1).
        StackError: as `keep_largest`.
    """
    kept = _column(stack, density)
    if not 0.0 <= gamma < 1.0:
        raise OperatorSettingError("gamma", gamma, "must be in [0, 1)")
    rows = stack.flatten(1)
    places = _places(rows) - int(gamma * rows.shape[1])
    return (rows * ((places >= 0) & (places < (kept * rows.shape[1]).floor()))).view_as(stack)


def _column(stack: Tensor, density: Tensor) -> Tensor:
    """Densities (N, 1) float64, checked."""
    if stack.ndim < 2 or stack.numel() == 0 or density.shape != stack.shape[:1]:
        raise StackError(
            f"density of shape {tuple(density.shape)} for a stack of shape {tuple(stack.shape)}: "
            "must be one for each expert of a stack (experts, ...) that is not empty"
        )
    for value in density.tolist():
        if not 0.0 <= value <= 1.0:
            raise OperatorSettingError("density", value, "must be in [0, 1]")
    return density.to(stack.device, torch.float64)[:, None]


def _places(rows: Tensor) -> Tensor:
    """Each entry's place, from 0, in its row's stable order of falling magnitude."""
    order = torch.argsort(rows.abs(), dim=1, descending=True, stable=True)
    numbers = torch.arange(rows.shape[1], device=rows.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, numbers)


def _drawn(rows: Tensor, likely: Tensor, generator: torch.Generator) -> Tensor:
    """Entries kept with a probability and divided by it; what is never kept is 0."""
    drawn = torch.bernoulli(likely, generator=generator)
    scale = drawn / torch.where(likely > 0.0, likely, 1.0)
    return rows * scale.to(rows.dtype)
