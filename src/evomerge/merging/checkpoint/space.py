"""What a candidate means over ELMs of one seed: seed + sum_i beta_i S_alpha_i(theta_i - seed)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.merging.candidates import stacked
from evomerge.merging.checkpoint import kernels
from evomerge.merging.checkpoint.average import equal_bytes
from evomerge.merging.checkpoint.files import Checkpoint, TensorEntry
from evomerge.merging.checkpoint.filling import Rounding, fill
from evomerge.merging.checkpoint.guards import check_mergeable
from evomerge.merging.checkpoint.kernels import Doubles
from evomerge.merging.checkpoint.lineage import Lineage
from evomerge.merging.checkpoint.sparse import Line, TaskVector
from evomerge.merging.checkpoint.tensors import MappedSource, Source, pieces, values
from evomerge.merging.checkpoint.writing import Recipe
from evomerge.merging.layers import layer_groups
from evomerge.merging.parallel import for_each
from evomerge.optimizers.candidate import Candidate


@dataclass(frozen=True)
class _Term:
    """One ELM's part in one tensor."""

    vector: TaskVector
    weight: float
    line: Line | None


class CheckpointSpace:
    """Realises candidates over a seed and its ELMs, which are mapped into memory.

    Only magnitude decides what S_alpha keeps of a tensor; every float tensor of the checkpoint is
    one, embeddings and norms too. Sums are float64 and rounded once, so that an ELM alone, whole
    and with weight one, comes out as it is, and nothing depends on the number of threads.

    Args:
        seed: what all of them come from.
        elms: N, of its lineage.
        groups: of layers, each with weights of its own; see `layer_groups`.

    Raises:
        MismatchError: an ELM does not fit the seed; see `guards` and `equal_bytes`.
        LayerGroupsError: more groups than layers.
    """

    def __init__(self, seed: Checkpoint, elms: Sequence[Checkpoint], groups: int = 1) -> None:
        check_mergeable([seed, *elms])
        sources = [MappedSource(each) for each in (seed, *elms)]
        self._merging = Merging(sources[0], sources[1:], groups)
        _check_buffers(self._merging)

    @property
    def size(self) -> int:
        """N."""
        return self._merging.size

    @property
    def groups(self) -> int:
        """G."""
        return self._merging.groups

    @property
    def seed(self) -> Checkpoint:
        return self._merging.seed.checkpoint

    @property
    def sources(self) -> list[Source]:
        """Where values come from: the seed's, then the ELMs'."""
        return self._merging.sources

    def fill(
        self,
        candidate: Candidate,
        targets: Mapping[str, Tensor],
        dtype: Rounding = None,
    ) -> None:
        """Write the weights that a candidate (G, N) means into tensors.

        Args:
            candidate: what is meant.
            targets: contiguous tensors of the seed's shapes, by their names in its files, of any
                float dtype up to float32; what is not named is left out.
            dtype: rounded to on the way, as a stored checkpoint is; "seed" for each tensor's own
                in the seed's files, None for float32 at once.

        Raises:
            CandidateError: the candidate does not fit the pool.
        """
        self._merging.of(candidate).fill(targets, dtype)

    def fill_seed(self, targets: Mapping[str, Tensor]) -> None:
        """Write the seed's own weights into tensors."""
        Merge(self._merging, {}).fill(targets, None)

    def recipe(
        self, candidate: Candidate, dtype: torch.dtype | None, lineage: Lineage | None
    ) -> Recipe:
        """How the checkpoint that a candidate (G, N) means is written.

        Raises:
            CandidateError: the candidate does not fit the pool.
        """
        return self._merging.of(candidate).recipe(dtype, lineage)


class Merging:
    """A seed and its ELMs, wherever their values come from.

    Args:
        seed, elms: the checkpoints, one model and lineage.
        groups: of layers.

    Raises:
        LayerGroupsError: more groups than layers.
    """

    def __init__(self, seed: Source, elms: Sequence[Source], groups: int) -> None:
        self.seed = seed
        self.groups = groups
        self._vectors = [TaskVector(elm, seed) for elm in elms]
        self._group_of = layer_groups(seed.checkpoint.tensors, groups)

    @property
    def size(self) -> int:
        """N."""
        return len(self._vectors)

    @property
    def sources(self) -> list[Source]:
        """The seed, then the ELMs."""
        return [self.seed, *(vector.elm for vector in self._vectors)]

    def of(self, candidate: Candidate) -> Merge:
        """The merge that a candidate (G, N) means; where its lines are is found now.

        Raises:
            CandidateError: the candidate does not fit.
        """
        alpha, beta = (each[0] for each in stacked([candidate], self.groups, self.size))
        names = [entry.name for entry in self.seed.checkpoint.tensors.values() if entry.is_float]
        wanted = [
            (name, number)
            for name in names
            for number in range(self.size)
            if beta[self._group_of[name], number] and alpha[self._group_of[name], number]
        ]
        terms: dict[tuple[str, int], _Term] = {}

        def draw(one: tuple[str, int]) -> None:
            name, number = one
            group = self._group_of[name]
            vector = self._vectors[number]
            line = vector.line(name, float(alpha[group, number]))
            terms[one] = _Term(vector, float(beta[group, number]), line)

        for_each(draw, wanted)
        plan: dict[str, list[_Term]] = {}
        for one in wanted:
            plan.setdefault(one[0], []).append(terms[one])
        return Merge(self, plan)


class Merge:
    """One candidate: what each tensor is the sum of, in the order of the ELMs."""

    def __init__(self, merging: Merging, terms: Mapping[str, Sequence[_Term]]) -> None:
        self._merging = merging
        self._terms = terms

    def total(self, entry: TensorEntry, first: int, last: int, out: Doubles) -> None:
        """Add values first..last-1 of a float tensor to `out`, (last - first,)."""
        seed = values(self._merging.seed, entry, first, last)
        kernels.add_scaled(seed, 1.0, out)
        for term in self._terms.get(entry.name, ()):
            elm = term.vector.elm
            own = values(elm, elm.checkpoint.tensors[entry.name], first, last)
            if term.line is None:
                kernels.add_difference(own, seed, term.weight, out)
            else:
                ties = term.line.ties_end - first
                kernels.add_kept(own, seed, term.line.magnitude, ties, term.weight, out)

    def raw(self, entry: TensorEntry, first: int, last: int) -> memoryview:
        """The bytes of a tensor that is no float; raises as `equal_bytes`."""
        return equal_bytes(self._merging.sources, entry, first, last)

    def recipe(self, dtype: torch.dtype | None, lineage: Lineage | None) -> Recipe:
        """How it is written."""
        return Recipe(self._merging.seed.checkpoint, self.total, self.raw, dtype, lineage)

    def fill(self, targets: Mapping[str, Tensor], dtype: Rounding) -> None:
        """See `CheckpointSpace.fill`."""
        fill(self._merging.seed.checkpoint, self.total, targets, dtype)


def _check_buffers(merging: Merging) -> None:
    """Refuse tensors that cannot be merged and are not the same in all; see `equal_bytes`."""
    for entry in merging.seed.checkpoint.tensors.values():
        for piece in () if entry.is_float else pieces(entry):
            equal_bytes(merging.sources, entry, piece.first, piece.last)
