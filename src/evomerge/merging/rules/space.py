"""What a candidate means under a merging rule: base + rule(task vectors), tensor by tensor."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from evomerge.merging.candidates import stacked
from evomerge.merging.checkpoint import kernels
from evomerge.merging.checkpoint.errors import CheckpointError
from evomerge.merging.checkpoint.files import Checkpoint, TensorEntry
from evomerge.merging.checkpoint.filling import Rounding, fill
from evomerge.merging.checkpoint.kernels import Doubles
from evomerge.merging.checkpoint.lineage import Lineage
from evomerge.merging.checkpoint.tensors import MappedSource, values
from evomerge.merging.checkpoint.writing import Recipe
from evomerge.merging.operators.rules import Rule
from evomerge.merging.rules.vectors import TaskVectors
from evomerge.optimizers.candidate import Candidate, FloatArray


def is_alone(candidate: Candidate) -> bool:
    """Whether no two experts are to be merged: one at most has a weight, and is kept whole."""
    used = candidate.beta != 0.0
    return int(used.any(axis=0).sum()) <= 1 and bool((candidate.alpha[used] == 1.0).all())


@dataclass(frozen=True)
class _Unit:
    """What candidates that differ in one common factor share.

    Attributes:
        key: who they are.
        updates: the merged task vector of each tensor at factor one, flat, float32.
    """

    key: bytes
    updates: Mapping[str, Tensor]


class RuleSpace:
    """Realises candidates over a base: its weights plus what a rule makes of task vectors.

    A candidate's alpha is what the rule keeps of each expert, its beta the experts' weights; those
    of weight zero take no part. An expert alone and whole is itself under every rule. Rules are
    homogeneous in the weights, so that candidates that differ in a common factor share one merge,
    which is kept until another is asked for. In memory are the task vectors of one tensor at a
    time, and that merge, in float32, of all tensors that experts change.

    Draws depend on the seed and the tensor's name alone: candidates are compared on the same ones,
    and nothing depends on what was merged before.

    Args:
        base: the checkpoint that is added to.
        vectors: what is added.
        rule: how it is merged.
        random_seed: of the draws.

    Raises:
        CheckpointError: the base has no float tensor of its own and shape for a task vector.
    """

    def __init__(
        self, base: Checkpoint, vectors: TaskVectors, rule: Rule, random_seed: int
    ) -> None:
        _check(base, vectors)
        self._base = MappedSource(base)
        self._vectors = vectors
        self._rule = rule
        self._random_seed = random_seed
        self._lock = threading.Lock()
        self._unit: _Unit | None = None

    @property
    def seed(self) -> Checkpoint:
        """The base."""
        return self._base.checkpoint

    @property
    def size(self) -> int:
        """N."""
        return self._vectors.size

    @property
    def groups(self) -> int:
        """G."""
        return self._vectors.groups

    def fill(
        self, candidate: Candidate, targets: Mapping[str, Tensor], dtype: Rounding = None
    ) -> None:
        """See `CheckpointSpace.fill`.

        Raises:
            CandidateError: the candidate does not fit the pool.
        """
        fill(self.seed, self._merge(candidate).total, targets, dtype)

    def fill_seed(self, targets: Mapping[str, Tensor]) -> None:
        """Write the base's own weights into tensors."""
        fill(self.seed, _Merge(self._base, {}, 0.0).total, targets)

    def recipe(
        self, candidate: Candidate, dtype: torch.dtype | None, lineage: Lineage | None
    ) -> Recipe:
        """How the checkpoint that a candidate (G, N) means is written.

        Raises:
            CandidateError: the candidate does not fit the pool.
        """
        return Recipe(self.seed, self._merge(candidate).total, self._base.raw, dtype, lineage)

    def updates(self, candidate: Candidate) -> dict[str, Tensor]:
        """What is added to each tensor, float32, of the tensors' shapes.

        Raises:
            CandidateError: the candidate does not fit the pool.
        """
        merge = self._merge(candidate)
        shape = self._vectors.shape
        return {name: merge.factor * flat.view(shape(name)) for name, flat in merge.unit.items()}

    def _merge(self, candidate: Candidate) -> _Merge:
        alpha, beta = (each[0] for each in stacked([candidate], self.groups, self.size))
        factor = float(np.abs(beta).max())
        if factor == 0.0:
            return _Merge(self._base, {}, 0.0)
        rule = None if is_alone(candidate) else self._rule
        return _Merge(self._base, self._shared(alpha, beta / factor, rule), factor)

    def _shared(
        self, alpha: FloatArray, direction: FloatArray, rule: Rule | None
    ) -> Mapping[str, Tensor]:
        key = alpha.tobytes() + direction.tobytes()
        with self._lock:
            if self._unit is None or self._unit.key != key:
                # Before the next is made, so that there are never two of them in memory.
                self._unit = None
                self._unit = _Unit(key, self._merged(alpha, direction, rule))
            return self._unit.updates

    def _merged(
        self, alpha: FloatArray, direction: FloatArray, rule: Rule | None
    ) -> dict[str, Tensor]:
        found = {}
        for name, group in self._vectors.group_of.items():
            members = np.flatnonzero(direction[group])
            if members.size:
                stack = self._vectors.stack(name, members.tolist())
                density, weights = (
                    torch.from_numpy(each[group, members]) for each in (alpha, direction)
                )
                if rule is None:
                    update = weights[0].to(stack) * stack[0]
                else:
                    generator = self._generator(name, stack.device)
                    update = rule.merge(stack, density, weights.to(stack.device), generator)
                found[name] = update.float().cpu().contiguous().view(-1)
        return found

    def _generator(self, name: str, device: torch.device) -> torch.Generator:
        digest = sha256(f"{self._random_seed}/{name}".encode()).digest()
        return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


@dataclass(frozen=True)
class _Merge:
    """One candidate: the base plus a factor times what was merged."""

    base: MappedSource
    unit: Mapping[str, Tensor]
    factor: float

    def total(self, entry: TensorEntry, first: int, last: int, out: Doubles) -> None:
        """Add values first..last-1 of a float tensor to `out`, (last - first,)."""
        kernels.add_scaled(values(self.base, entry, first, last), 1.0, out)
        update = self.unit.get(entry.name)
        if update is not None:
            kernels.add_scaled(update[first:last].numpy(), self.factor, out)


def _check(base: Checkpoint, vectors: TaskVectors) -> None:
    for name in vectors.group_of:
        entry = base.tensors.get(name)
        if entry is None or not entry.is_float:
            raise CheckpointError(base.folder, f"has no float tensor {name!r} of its own")
        if entry.shape != vectors.shape(name):
            reason = f"{name} is {list(entry.shape)}, the update {list(vectors.shape(name))}"
            raise CheckpointError(base.folder, reason)
