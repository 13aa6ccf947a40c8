"""A seed in memory that takes on the weights of merged checkpoints, and its own again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import ParameterError, WrongSeedError
from evomerge.merging.checkpoint.files import Checkpoint
from evomerge.merging.checkpoint.filling import Rounding
from evomerge.merging.checkpoint.lineage import Lineage
from evomerge.merging.checkpoint.writing import Recipe
from evomerge.optimizers.candidate import Candidate


class WeightSpace(Protocol):
    """Gives a seed the weights that candidates mean; see `CheckpointSpace`."""

    @property
    def seed(self) -> Checkpoint: ...

    @property
    def size(self) -> int: ...

    @property
    def groups(self) -> int: ...

    def fill(
        self, candidate: Candidate, targets: Mapping[str, Tensor], dtype: Rounding = None
    ) -> None: ...

    def fill_seed(self, targets: Mapping[str, Tensor]) -> None: ...

    def recipe(
        self, candidate: Candidate, dtype: torch.dtype | None, lineage: Lineage | None
    ) -> Recipe: ...


S = TypeVar("S", bound=WeightSpace, covariant=True)


class MergedWeights(Generic[S]):
    """Writes candidates into a loaded seed.

    Args:
        base: the seed, loaded; others may share it.
        space: what a candidate means.

    Raises:
        WrongSeedError: the base is not the seed of the space.
        ParameterError: a parameter of the model has no tensor of its own and shape in the seed's
            files.
    """

    def __init__(self, base: BaseModel, space: S) -> None:
        if base.content_hash != space.seed.content_hash:
            raise WrongSeedError(base.name, space.seed.name)
        self.base = base
        self.space = space
        self._targets = parameters_by_tensor(base, space)

    @contextmanager
    def merged(self, candidate: Candidate, dtype: Rounding = None) -> Iterator[None]:
        """Hold the model with a candidate's weights in it; the seed's are back afterwards.

        `BaseModel.running` keeps others out meanwhile.

        Args:
            candidate: (G, N).
            dtype: see `CheckpointSpace.fill`.

        Raises:
            CandidateError: the candidate does not fit the space.
        """
        with self.base.running():
            try:
                self.space.fill(candidate, self._targets, dtype)
                yield
            finally:
                self.space.fill_seed(self._targets)


def parameters_by_tensor(base: BaseModel, space: WeightSpace) -> Mapping[str, Tensor]:
    """Where each float tensor of the seed's files is in the model.

    A tensor that loading left out, such as a rotary table, is not in it; tied parameters are
    there once.

    Raises:
        ParameterError: a parameter has no tensor of its own, or one of another shape.
    """
    prefix = f"{base.model.base_model_prefix}."
    held = dict(base.model.state_dict(keep_vars=True))
    found: dict[str, Tensor] = {}
    for name, entry in space.seed.tensors.items():
        target = held.get(name, held.get(prefix + name))
        if target is not None and entry.is_float:
            if tuple(target.shape) != entry.shape or not target.is_contiguous():
                raise ParameterError(name, base.name, f"is of shape {list(target.shape)} in it")
            found[name] = target
    filled = {target.data_ptr() for target in found.values()}
    for name, parameter in base.model.named_parameters():
        if parameter.data_ptr() not in filled:
            raise ParameterError(name, base.name, "has no tensor of its own in the files")
    return found
