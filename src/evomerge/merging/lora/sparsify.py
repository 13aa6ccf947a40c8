"""S_alpha: keep the entries of largest magnitude of one tensor (Evo-Merging, section 3.1).

The number kept is ceil(alpha * numel), ties going to the entry that comes first. Which entries
those are is asked for many alphas, so that every entry's place by magnitude is computed once:
S_alpha then is one comparison an entry, and sums over sparsified experts need no sorting.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.merging.lora import kernels
from evomerge.optimizers.candidate import FloatArray

IntArray = NDArray[np.int32]


def keep_counts(alpha: FloatArray, sizes: NDArray[np.int64]) -> IntArray:
    """How many entries S_alpha keeps: ceil(alpha * size).

    Args:
        alpha: (..., N) in [0, 1].
        sizes: (N,) entries of each expert's tensor.

    Returns:
        (..., N) int32.
    """
    return np.ceil(alpha * sizes).astype(np.int32)


def sparsify(tensor: Tensor, alpha: float) -> Tensor:
    """S_alpha of one tensor of any shape: the definition, in plain torch.

    Raises:
        ValueError: alpha is outside [0, 1].
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha={alpha!r}: must be in [0, 1]")
    flat = tensor.flatten()
    kept = int(keep_counts(np.array([alpha]), np.array([flat.numel()]))[0])
    order = torch.argsort(flat.abs(), descending=True, stable=True)
    result = torch.zeros_like(flat)
    result[order[:kept]] = flat[order[:kept]]
    return result.view_as(tensor)


def ranks_dtype(length: int, device: torch.device) -> torch.dtype:
    """The smallest type for places in a tensor of so many entries (CUDA: that can compare)."""
    small = length <= 1 << 16 and device.type == "cpu"
    return torch.uint16 if small else torch.int32


def magnitude_ranks(values: Tensor, out: Tensor) -> None:
    """Write each entry's place, from 0, in its row's stable order of falling magnitude.

    Padding with zeros at the end of a row comes last, so that it never takes a place from the
    entries before it.

    Args:
        values: (N, L).
        out: (N, L), of `ranks_dtype`.
    """
    if use_kernels(values):
        floats, places = as_array(values), out.numpy()
        for row in range(floats.shape[0]):
            kernels.rank_by_magnitude(floats[row], places[row])
        return
    order = torch.argsort(values.abs(), dim=1, descending=True, stable=True)
    numbers = torch.arange(values.shape[1], device=values.device, dtype=torch.int32)
    ranks = torch.empty_like(order, dtype=torch.int32)
    out.copy_(ranks.scatter_(1, order, numbers.expand_as(order)))


def sparse_sum(
    values: Tensor, ranks: Tensor | None, keep: IntArray, weights: FloatArray, out: Tensor
) -> None:
    """out[p] = sum_i weights[p, i] * S(values[i]), S keeping keep[p, i] entries.

    Args:
        values: (N, L), the tensor of each expert.
        ranks: (N, L) from `magnitude_ranks`; None if nothing is to be dropped.
        keep: (P, N).
        weights: (P, N).
        out: (P, L) of the type of `values`, written over.
    """
    if use_kernels(values):
        _sparse_sum_kernel(values, ranks, keep, weights, out)
        return
    w = torch.as_tensor(weights, device=values.device, dtype=values.dtype)
    if ranks is None:
        torch.mm(w, values, out=out)
    elif (keep == keep[0]).all():
        torch.mm(w, kept_of(values, ranks, keep[0]), out=out)
    else:
        for p in range(keep.shape[0]):
            torch.mv(kept_of(values, ranks, keep[p]).T, w[p], out=out[p])


def _sparse_sum_kernel(
    values: Tensor, ranks: Tensor | None, keep: IntArray, weights: FloatArray, out: Tensor
) -> None:
    w = np.ascontiguousarray(weights, dtype=np.float32)
    if ranks is None:
        kernels.weighted_sum(as_array(values), w, as_array(out))
    elif (keep == keep[0]).all():
        kernels.masked_sum(as_array(values), ranks.numpy(), keep[0].copy(), w, as_array(out))
    else:
        counts = np.ascontiguousarray(keep)
        kernels.masked_sums(as_array(values), ranks.numpy(), counts, w, as_array(out))


def sparse_copy(values: Tensor, ranks: Tensor | None, keep: IntArray, out: Tensor) -> None:
    """out[i] = S(values[i]), S keeping keep[i] entries.

    Args:
        values: (N, L), the tensor of each expert.
        ranks: (N, L) from `magnitude_ranks`; None if they are not to be had: the same comes out,
            more slowly.
        keep: (N,).
        out: (N, L), written over.
    """
    counts = np.ascontiguousarray(keep)
    if use_kernels(values) and ranks is None:
        kernels.largest_copy(as_array(values), counts, as_array(out))
    elif use_kernels(values) and ranks is not None:
        kernels.masked_copy(as_array(values), ranks.numpy(), counts, as_array(out))
    else:
        out.copy_(kept_of(values, _ranks(values) if ranks is None else ranks, keep))


def _ranks(values: Tensor) -> Tensor:
    ranks = torch.empty(
        values.shape, dtype=ranks_dtype(values.shape[1], values.device), device=values.device
    )
    magnitude_ranks(values, ranks)
    return ranks


def kept_of(values: Tensor, ranks: Tensor, keep: IntArray) -> Tensor:
    """S(values[i]) in plain torch, (N, L)."""
    limit = torch.as_tensor(keep, device=values.device, dtype=torch.int32)[:, None]
    return torch.where(ranks.to(torch.int32) < limit, values, 0)


def use_kernels(values: Tensor) -> bool:
    """Whether numba's kernels take this tensor; torch does the others."""
    return values.device.type == "cpu" and values.dtype == torch.float32


def as_array(tensor: Tensor) -> NDArray[np.float32]:
    """The same memory, contiguous, as numpy sees it."""
    return cast("NDArray[np.float32]", tensor.numpy())
