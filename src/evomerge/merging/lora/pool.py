"""A pool of LoRA adapters, stacked once in memory.

All factors lie in two flat buffers, module after module; within a module the experts follow each
other, so that what merging sums is one matrix (N, r * d) and what the exact composition
multiplies by is one matrix (N * r, d), both without a copy. B is stored transposed for that.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evomerge.merging.layers import layer_groups
from evomerge.merging.lora.adapter import LoraAdapter, ModuleShape, read_header
from evomerge.merging.lora.errors import PoolError
from evomerge.merging.lora.sparsify import magnitude_ranks, ranks_dtype
from evomerge.merging.parallel import for_each


@dataclass(frozen=True, eq=False)
class StackedModule:
    """The factors of one module, of all N experts.

    Attributes:
        name: full module name in the base.
        group: of layers.
        A: (N, r, d_in), rows beyond an expert's rank zero; r is the largest rank.
        Bt: (N, r, d_out), the transposes of B, likewise.
        ranks: the rank of each expert here, 0 where it does not adapt the module.
    """

    name: str
    group: int
    A: Tensor
    Bt: Tensor
    ranks: tuple[int, ...]

    @property
    def rank(self) -> int:
        return int(self.A.shape[1])

    @property
    def d_in(self) -> int:
        return int(self.A.shape[2])

    @property
    def d_out(self) -> int:
        return int(self.Bt.shape[2])

    @cached_property
    def sizes(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Entries of each expert's A, without padding, (N,)."""
        return np.array(self.ranks, dtype=np.int64) * self.d_in


class LoraPool:
    """N adapters of one base, stacked. Made by `stack_folders` or `stack_adapters`.

    Attributes:
        names, content_hashes: of the experts, in order.
        groups: G, contiguous groups of layers, first to last.
        modules: every module that some expert adapts, by group and name.

    Safe to share between threads: it never changes, but for ranks that come and go.
    """

    def __init__(
        self,
        names: Sequence[str],
        content_hashes: Sequence[str],
        groups: int,
        modules: Sequence[StackedModule],
    ) -> None:
        self.names = tuple(names)
        self.content_hashes = tuple(content_hashes)
        self.groups = groups
        self.modules = tuple(modules)
        self._lock = threading.Lock()
        self._ranks: dict[str, Tensor] | None = None

    @property
    def size(self) -> int:
        """N."""
        return len(self.names)

    @property
    def nbytes(self) -> int:
        """Bytes of the stacked factors."""
        return sum(m.A.nbytes + m.Bt.nbytes for m in self.modules)

    def reserve(self, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Zeroed tensors of these shapes in one buffer, where and of the type the pool is."""
        example = self.modules[0].A
        return _flat_views(shapes, example.device, example.dtype)

    def magnitude_ranks(self) -> Mapping[str, Tensor]:
        """By module: (N, r * d_in), the place of every entry of A by magnitude in its tensor.

        Made at first use, as `sparsify.magnitude_ranks` does, and kept until `forget_ranks`: a
        quarter of the pool's memory (half, where a tensor has more than 65,536 entries).
        """
        with self._lock:
            if self._ranks is None:
                self._ranks = _all_ranks(self.modules)
            return self._ranks

    def forget_ranks(self) -> None:
        """Let their memory go; whoever asks for them next has them made anew."""
        with self._lock:
            self._ranks = None


def stack_folders(
    folders: Sequence[Path],
    groups: int = 1,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LoraPool:
    """Read adapters one by one into a stack, so that one more at most is in memory.

    Raises:
        AdapterError: an adapter cannot be read.
        PoolError: no folder, or adapters of different shapes.
        LayerGroupsError: more groups than layers.
    """
    headers = [read_header(folder) for folder in folders]
    return _stack(
        [header.name for header in headers],
        [header.shapes for header in headers],
        (header.load() for header in headers),
        groups,
        torch.device(device),
        dtype,
    )


def stack_adapters(
    adapters: Sequence[LoraAdapter],
    groups: int = 1,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LoraPool:
    """Stack adapters that are in memory already.

    Raises:
        PoolError: none at all, or adapters of different shapes.
        LayerGroupsError: more groups than layers.
    """
    return _stack(
        [adapter.name for adapter in adapters],
        [adapter.shapes for adapter in adapters],
        adapters,
        groups,
        torch.device(device),
        dtype,
    )


def _stack(
    names: Sequence[str],
    shapes: Sequence[Mapping[str, ModuleShape]],
    adapters: Iterable[LoraAdapter],
    groups: int,
    device: torch.device,
    dtype: torch.dtype,
) -> LoraPool:
    if not names:
        raise PoolError("adapters", [], "a pool needs at least one")
    modules = _reserve(names, shapes, groups, device, dtype)
    hashes = []
    for expert, adapter in enumerate(adapters):
        for module in modules:
            factors = adapter.modules.get(module.name)
            if factors is not None:
                a, b = factors
                module.A[expert, : a.shape[0]] = a
                module.Bt[expert, : b.shape[1]] = b.T
        hashes.append(adapter.content_hash)
    return LoraPool(names, hashes, groups, modules)


def _reserve(
    names: Sequence[str],
    shapes: Sequence[Mapping[str, ModuleShape]],
    groups: int,
    device: torch.device,
    dtype: torch.dtype,
) -> list[StackedModule]:
    """The modules of the pool over zeroed buffers."""
    sizes = _common_sizes(names, shapes)
    group_of = layer_groups(sizes, groups)
    ordered = sorted(sizes, key=lambda module: (group_of[module], _natural(module)))
    ranks = {
        module: tuple(own[module].rank if module in own else 0 for own in shapes)
        for module in ordered
    }
    experts = len(names)
    a_shapes = [(experts, max(ranks[module]), sizes[module][0]) for module in ordered]
    b_shapes = [(experts, max(ranks[module]), sizes[module][1]) for module in ordered]
    return [
        StackedModule(module, group_of[module], a, b, ranks[module])
        for module, a, b in zip(
            ordered,
            _flat_views(a_shapes, device, dtype),
            _flat_views(b_shapes, device, dtype),
            strict=True,
        )
    ]


def _common_sizes(
    names: Sequence[str], shapes: Sequence[Mapping[str, ModuleShape]]
) -> dict[str, tuple[int, int]]:
    """(d_in, d_out) by module."""
    sizes: dict[str, tuple[int, int]] = {}
    for name, own in zip(names, shapes, strict=True):
        for module, shape in own.items():
            given = (shape.d_in, shape.d_out)
            if sizes.setdefault(module, given) != given:
                raise PoolError(
                    "adapters",
                    name,
                    f"is (d_in, d_out) {given} at {module!r}, others are {sizes[module]}; "
                    "a pool shares one base",
                )
    return sizes


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]


def _flat_views(
    shapes: Sequence[tuple[int, ...]], device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Zeroed tensors of the shapes, one after the other in one buffer."""
    ends = list(accumulate(math.prod(shape) for shape in shapes))
    buffer = _zeros(ends[-1] if ends else 0, device, dtype)
    return [
        buffer[start:end].view(shape)
        for start, end, shape in zip([0, *ends], ends, shapes, strict=False)
    ]


def _zeros(count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    if device.type == "cpu" and dtype == torch.float32:
        # numpy asks the system for large pages and zeroes them as they are touched.
        return torch.from_numpy(np.zeros(count, dtype=np.float32))
    return torch.zeros(count, device=device, dtype=dtype)


def _all_ranks(modules: Sequence[StackedModule]) -> dict[str, Tensor]:
    """In one buffer, so that all of it goes back to the system once it is let go."""
    shapes = [(module.A.shape[0], module.rank * module.d_in) for module in modules]
    kinds = [ranks_dtype(shape[1], m.A.device) for shape, m in zip(shapes, modules, strict=True)]
    sizes = [math.prod(s) * kind.itemsize for s, kind in zip(shapes, kinds, strict=True)]
    # Each begins where any of the types may.
    ends = list(accumulate(-(-size // 4) * 4 for size in sizes))
    buffer = torch.empty(ends[-1], dtype=torch.uint8, device=modules[0].A.device)
    made = {
        module.name: buffer[start : start + size].view(kind).view(shape)
        for module, start, size, kind, shape in zip(
            modules, [0, *ends], sizes, kinds, shapes, strict=False
        )
    }
    for_each(lambda module: magnitude_ranks(module.A.flatten(1), made[module.name]), modules)
    return made
