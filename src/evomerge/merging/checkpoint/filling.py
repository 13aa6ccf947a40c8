"""Write what tensors are sums of into a model in memory, as a stored checkpoint would have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.merging.checkpoint import kernels
from evomerge.merging.checkpoint.files import Checkpoint, TensorEntry
from evomerge.merging.checkpoint.kernels import Doubles
from evomerge.merging.checkpoint.tensors import STRETCH, Piece, pieces, rounded
from evomerge.merging.checkpoint.writing import DTYPE_NAMES, Sum
from evomerge.merging.parallel import for_each

# To what weights are rounded: a dtype, each tensor's own in the seed, or nothing.
Rounding: TypeAlias = torch.dtype | Literal["seed"] | None


def fill(
    like: Checkpoint, total: Sum, targets: Mapping[str, Tensor], dtype: Rounding = None
) -> None:
    """Write sums into tensors, many pieces at a time.

    Args:
        like: the checkpoint whose names and shapes the tensors have.
        total: gives the values.
        targets: contiguous tensors by name, of any float dtype up to float32.
        dtype: rounded to on the way; "seed" for each tensor's own in `like`, None for float32 at
            once.
    """
    work = [(piece, targets[name]) for name in targets for piece in pieces(like.tensors[name])]
    for_each(lambda item: _fill_piece(total, *item, dtype), work)


def _fill_piece(total: Sum, piece: Piece, target: Tensor, dtype: Rounding) -> None:
    stored = _name(dtype, piece.entry)
    flat = target.detach().view(-1)[piece.first : piece.last]
    direct = flat.device.type == "cpu" and flat.dtype == torch.float32
    singles = flat.numpy() if direct else np.empty(piece.last - piece.first, np.float32)
    room = np.empty(min(STRETCH, piece.last - piece.first))
    for first, last in piece.stretches():
        added = room[: last - first]
        added[:] = 0.0
        total(piece.entry, first, last, added)
        _put(added, stored, singles[first - piece.first : last - piece.first])
    if not direct:
        flat.copy_(torch.from_numpy(singles))


def _name(dtype: Rounding, entry: TensorEntry) -> str | None:
    """What a tensor is rounded to, by the format's name."""
    if dtype is None:
        return None
    return entry.dtype if dtype == "seed" else DTYPE_NAMES[dtype]


def _put(total: Doubles, dtype: str | None, singles: NDArray[np.float32]) -> None:
    """What was added up, rounded to a dtype of the format's name on the way."""
    with np.errstate(over="ignore"):
        if dtype is None:
            singles[:] = total
            return
        stored = rounded(total, dtype)
        if dtype == "BF16":
            kernels.widen(stored, singles.view(np.uint32))
        else:
            singles[:] = stored
