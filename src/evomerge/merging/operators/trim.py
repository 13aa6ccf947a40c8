"""What is left of a task vector: four ways to thin it out, one row an expert.

All take a stack (N, ...) and the fraction of each expert that is kept, density (N,) in [0, 1],
and return a stack of the same shape and dtype. A density of 1 keeps an expert as it is (but see
`drop_outliers`), a density of 0 drops it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
    return (rows * _largest(rows, _counts(kept, rows.shape[1]))).view_as(stack)


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
    order = rows.abs().argsort(dim=-1, stable=True)
    ranks = torch.arange(rows.shape[-1], device=rows.device, dtype=torch.float32)
    rank = torch.empty(rows.shape, device=rows.device).scatter_(-1, order, ranks.expand(rows.shape))
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
    outliers = int(gamma * rows.shape[1])
    counts = _counts(kept, rows.shape[1])
    middle = _largest(rows, [count + outliers for count in counts])
    middle &= ~_largest(rows, [outliers] * len(counts))
    return (rows * middle).view_as(stack)


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


def _counts(kept: Tensor, size: int) -> list[int]:
    """How many of `size` entries each of the fractions (N, 1) keeps."""
    return [int(count) for count in (kept[:, 0] * size).floor().tolist()]


def _largest(rows: Tensor, counts: Sequence[int]) -> Tensor:
    """Where each row's `counts` entries of largest magnitude are, (N, n) bool; ties: the first."""
    found = torch.empty(rows.shape, dtype=torch.bool, device=rows.device)
    # Row by row: what decides is as large as one expert, not as all.
    for row, count, kept in zip(rows, counts, found, strict=True):
        if count <= 0 or count >= row.numel():
            kept.fill_(count > 0)
            continue
        magnitude = row.abs()
        line = _descending(magnitude, count)
        torch.gt(magnitude, line, out=kept)
        ties = magnitude == line
        left = count - int(kept.sum())
        kept |= ties if int(ties.sum()) == left else ties & (ties.cumsum(0) <= left)
    return found


def _descending(values: Tensor, place: int) -> float:
    """The `place`-th largest of values (n,), counted from 1."""
    index = values.numel() - place
    if values.device.type == "cpu":
        # numpy selects much faster than torch does (measured).
        wide = values.to(torch.promote_types(values.dtype, torch.float32))
        return float(np.partition(wide.numpy(), index)[index])
    return float(values.kthvalue(index + 1).values)


def _drawn(rows: Tensor, likely: Tensor, generator: torch.Generator) -> Tensor:
    """Entries kept with a probability and divided by it; what is never kept is 0."""
    drawn = torch.bernoulli(likely, generator=generator)
    scale = drawn / torch.where(likely > 0.0, likely, 1.0)
    return rows * scale.to(rows.dtype)
