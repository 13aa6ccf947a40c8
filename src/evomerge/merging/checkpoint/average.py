"""Parameter averages theta = sum_i w_i theta_i (arXiv 2208.03306, section 3.3), streaming."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from numpy.typing import ArrayLike

from evomerge.merging.checkpoint import kernels
from evomerge.merging.checkpoint.errors import UnequalTensorError
from evomerge.merging.checkpoint.files import Checkpoint, TensorEntry, read_checkpoint
from evomerge.merging.checkpoint.guards import check_same_lineage, check_same_model
from evomerge.merging.checkpoint.kernels import Doubles
from evomerge.merging.checkpoint.lineage import Lineage
from evomerge.merging.checkpoint.tensors import FileSource, Source, values
from evomerge.merging.checkpoint.writing import Recipe, write_checkpoint
from evomerge.merging.forest.averages import checked_weights


def average(
    folders: Sequence[Path],
    weights: ArrayLike,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    lineage: Lineage | None = None,
    same_lineage: bool = True,
) -> None:
    """Write the weighted average of some ELMs as a checkpoint, all of it or nothing.

    Summed in float64 and rounded once. Names, shards, ties, configuration and tokenizer are those
    of the first folder; tensors that are no floats must be equal in all, and stay. An ELM of
    weight 0 is held to the same checks, but none of its weights is read.

    Args:
        folders: of the ELMs.
        weights: (n,), at least 0, with sum 1.
        out: to be made; replaced if it is there.
        dtype: of the result's float tensors; None for those of the first folder.
        lineage: written as its elm.json; see `merged_lineage`. None for none.
        same_lineage: whether ELMs of different seeds are refused. Their average is noise, which
            is only ever of interest to show.

    Raises:
        WeightsError: the weights are no distribution over the ELMs, or there is no ELM.
        CheckpointError: a folder is no checkpoint that can be read.
        MismatchError: an ELM does not fit the first; see `guards`.
        TensorError: the result has values that are not finite in its dtype.
        DiskFullError, ArtifactWriteError: writing failed; nothing was left behind.
    """
    shares = checked_weights(weights, len(folders), "weights")
    checkpoints = [read_checkpoint(folder) for folder in folders]
    check_same_model(checkpoints)
    if same_lineage:
        check_same_lineage(checkpoints)
    with ExitStack() as stack:
        sources = [stack.enter_context(FileSource(each)) for each in checkpoints]
        mix = _Average(sources, [float(share) for share in shares])
        write_checkpoint(Recipe(checkpoints[0], mix.total, mix.raw, dtype, lineage), out)


class _Average:
    """The sum of some sources, weighted."""

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]) -> None:
        self._sources = sources
        self._weighted = [(s, w) for s, w in zip(sources, weights, strict=True) if w]

    def total(self, entry: TensorEntry, first: int, last: int, out: Doubles) -> None:
        """See `writing.Sum`."""
        for source, weight in self._weighted:
            own = source.checkpoint.tensors[entry.name]
            kernels.add_scaled(values(source, own, first, last), weight, out)

    def raw(self, entry: TensorEntry, first: int, last: int) -> memoryview:
        """See `writing.Raw`."""
        return equal_bytes(self._sources, entry, first, last)


def equal_bytes(sources: Sequence[Source], entry: TensorEntry, first: int, last: int) -> memoryview:
    """Values first..last-1 of a tensor that is the same in all checkpoints.

    Raises:
        UnequalTensorError: it is not; names the ELM and the tensor.
    """
    content = sources[0].raw(entry, first, last)
    for source in sources[1:]:
        if source.raw(source.checkpoint.tensors[entry.name], first, last) != content:
            raise _unequal(source.checkpoint, sources[0].checkpoint, entry)
    return content


def _unequal(one: Checkpoint, other: Checkpoint, entry: TensorEntry) -> UnequalTensorError:
    reason = f"of dtype {entry.dtype} has other values, and cannot be averaged"
    return UnequalTensorError(one.name, other.name, f"tensor {entry.name!r}", reason)
