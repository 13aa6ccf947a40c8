"""Task vectors of a pool, tensor by tensor: what each expert adds to the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.checkpoint.tensors import values
from evomerge.merging.layers import layer_groups
from evomerge.merging.lora.pool import LoraPool


class TaskVectors(Protocol):
    """What N experts add to the tensors of one base."""

    @property
    def size(self) -> int:
        """N."""
        ...

    @property
    def groups(self) -> int:
        """G, of layers."""
        ...

    @property
    def group_of(self) -> Mapping[str, int]:
        """The group of each tensor that an expert may change, by its name in the base's files."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor of `group_of`."""
        ...

    def stack(self, name: str, members: Sequence[int]) -> Tensor:
        """The task vectors of K experts, (K, *shape) float32; those of a scalar are (K, 1)."""
        ...


class LoraVectors:
    """B_i A_i of adapters, scale and all; zeros where one leaves a module as it is."""

    def __init__(self, pool: LoraPool) -> None:
        self.size = pool.size
        self.groups = pool.groups
        self.group_of = {f"{module.name}.weight": module.group for module in pool.modules}
        self._modules = {f"{module.name}.weight": module for module in pool.modules}

    def shape(self, name: str) -> tuple[int, ...]:
        """See `TaskVectors.shape`."""
        return self._modules[name].d_out, self._modules[name].d_in

    def stack(self, name: str, members: Sequence[int]) -> Tensor:
        """See `TaskVectors.stack`."""
        module, chosen = self._modules[name], list(members)
        return torch.bmm(module.Bt[chosen].transpose(1, 2), module.A[chosen]).float()


class ElmVectors:
    """theta_i - theta_seed of ELMs, every float tensor, embeddings and norms too."""

    def __init__(self, space: CheckpointSpace) -> None:
        self._seed, *self._elms = space.sources
        self._tensors = space.seed.tensors
        of_layers = layer_groups(self._tensors, space.groups)
        self.size = space.size
        self.groups = space.groups
        self.group_of = {
            entry.name: of_layers[entry.name] for entry in self._tensors.values() if entry.is_float
        }

    def shape(self, name: str) -> tuple[int, ...]:
        """See `TaskVectors.shape`."""
        return self._tensors[name].shape

    def stack(self, name: str, members: Sequence[int]) -> Tensor:
        """See `TaskVectors.stack`."""
        entry = self._tensors[name]
        found = torch.empty(len(members), *(entry.shape or (1,)))
        seed = torch.from_numpy(values(self._seed, entry, 0, entry.size).copy())
        for row, number in zip(found.view(len(members), -1), members, strict=True):
            elm = self._elms[number]
            own = values(elm, elm.checkpoint.tensors[name], 0, entry.size)
            torch.sub(torch.from_numpy(own.copy()), seed, out=row)
        return found
