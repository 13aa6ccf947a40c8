"""Write the checkpoint that a candidate means, streaming: the seed may be larger than memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from evomerge.merging.checkpoint.files import read_checkpoint
from evomerge.merging.checkpoint.guards import check_mergeable
from evomerge.merging.checkpoint.lineage import Lineage
from evomerge.merging.checkpoint.space import Merging
from evomerge.merging.checkpoint.tensors import FileSource
from evomerge.merging.checkpoint.writing import write_checkpoint
from evomerge.optimizers.candidate import Candidate


def merge(
    seed: Path,
    folders: Sequence[Path],
    candidate: Candidate,
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    lineage: Lineage | None = None,
) -> None:
    """Write seed + sum_i beta_i S_alpha_i(theta_i - seed) as a checkpoint, or nothing.

    What `CheckpointSpace` computes, to the bit. Names, shards, ties, configuration and tokenizer
    are the seed's; tensors that are no floats must be equal in all, and stay.

    Args:
        seed: folder of what the ELMs come from.
        folders: of the ELMs.
        candidate: (G, N), with a group of layers for each row.
        out: to be made; replaced if it is there.
        dtype: of the result's float tensors; None for the seed's.
        lineage: written as its elm.json; None for none.

    Raises:
        CheckpointError: a folder is no checkpoint that can be read.
        MismatchError: an ELM does not fit the seed; see `guards`.
        CandidateError, LayerGroupsError: the candidate does not fit.
        TensorError: the result has values that are not finite in its dtype.
        DiskFullError, ArtifactWriteError: writing failed; nothing was left behind.
    """
    checkpoints = [read_checkpoint(folder) for folder in (seed, *folders)]
    check_mergeable(checkpoints)
    with ExitStack() as stack:
        sources = [stack.enter_context(FileSource(each)) for each in checkpoints]
        found = Merging(sources[0], sources[1:], candidate.groups).of(candidate)
        write_checkpoint(found.recipe(dtype, lineage), out)
