"""Candidates of a space as adapter folders, named by what they are made of."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from evomerge.merging.lora.artifact import MergedAdapter, merged_adapter
from evomerge.merging.lora.padding import padded
from evomerge.merging.lora.space import LoraSpace
from evomerge.optimizers.candidate import Candidate

_SHOWN = 24


class AdapterWriter:
    """Materialises candidates for servers that load adapters.

    Args:
        space: the pool and its composition.
        base_name: of the base, for the configuration.
        dtype: that values are rounded to.
        rank: above it a candidate is compressed by SVD.
        ranks: what the server takes, ascending; each adapter is padded to one of them.

    Raises:
        ValueError: no rank the server takes holds `rank`.
    """

    def __init__(
        self,
        space: LoraSpace,
        base_name: str,
        dtype: torch.dtype,
        *,
        rank: int,
        ranks: Sequence[int],
    ) -> None:
        if rank > max(ranks):
            raise ValueError(f"rank={rank!r}: the server takes at most {max(ranks)}")
        self._space = space
        self._base_name = base_name
        self._dtype = dtype
        self._rank = rank
        self._ranks = ranks

    def adapter(self, candidate: Candidate) -> MergedAdapter:
        """The very adapter that is written.

        Raises:
            CandidateError: the candidate does not fit the pool.
        """
        merged = merged_adapter(self._space, candidate, self._dtype, self._rank)
        return padded(merged, self._ranks)

    def write(self, candidate: Candidate, folder: Path) -> None:
        """Write the adapter; a folder that is there is replaced.

        Raises:
            CandidateError: the candidate does not fit the pool.
            DiskFullError, ArtifactWriteError: the system refuses.
        """
        self.adapter(candidate).write(folder, self._base_name)

    def name(self, candidate: Candidate) -> str:
        """A digest of everything that decides the adapter's bytes, without computing them."""
        made_of = [
            *self._space.pool.content_hashes,
            self._space.composition,
            str(self._dtype),
            str(self._rank),
        ]
        digest = sha256("\n".join(made_of).encode())
        for values in (candidate.alpha, candidate.beta):
            digest.update(np.ascontiguousarray(values, "<f8").tobytes())
        return digest.hexdigest()[:_SHOWN]
