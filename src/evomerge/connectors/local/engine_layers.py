"""Linear layers in which every row of a batch has the update of its own adapter."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor, nn

from evomerge.connectors.local.base_model import BaseModel
from evomerge.merging.lora.adapter import read_adapter


@dataclass(frozen=True, eq=False)
class EngineAdapter:
    """One adapter where and in what the base computes.

    Attributes:
        key: its content hash; rows of one key go through its factors together.
        modules: by full module name, A^T (d_in, r) and B^T (r, d_out), the scale folded into B.
    """

    key: str
    modules: Mapping[str, tuple[Tensor, Tensor]]


def load_engine_adapter(folder: Path, base: BaseModel) -> EngineAdapter:
    """Read a PEFT adapter's folder and check it against the base.

    Raises:
        AdapterError: it cannot be read, or is for another base.
    """
    adapter = read_adapter(folder)
    adapter.check_against(base.linear_shapes())
    modules = {}
    for module, (a, b) in adapter.modules.items():
        weight = base.linears[module].weight
        modules[module] = (a.to(weight).T.contiguous(), b.to(weight).T.contiguous())
    return EngineAdapter(adapter.content_hash, modules)


@dataclass(frozen=True)
class Segment:
    """Rows first..last-1 of a batch, all of one adapter."""

    first: int
    last: int
    adapter: EngineAdapter


def segments(adapters: Sequence[EngineAdapter | None]) -> list[Segment]:
    """Runs of rows of one adapter; rows of the bare base are left out."""
    runs = []
    first = 0
    for adapter, run in groupby(adapters):
        last = first + len(list(run))
        if adapter is not None:
            runs.append(Segment(first, last, adapter))
        first = last
    return runs


@dataclass(eq=False)
class Route:
    """Which rows of the batch under way are whose. Set before each forward, by one thread."""

    segments: Sequence[Segment] = field(default_factory=list)

    @contextmanager
    def installed(self, base: BaseModel) -> Iterator[None]:
        """Let the base's linear layers look here; use inside `base.running()`."""
        try:
            for module, linear in base.linears.items():
                base.model.set_submodule(module, RoutedLinear(module, linear, self))
            yield
        finally:
            for module, linear in base.linears.items():
                base.model.set_submodule(module, linear)


class RoutedLinear(nn.Module):
    """A linear layer plus, for each run of rows, ``(x A^T) B^T`` of its adapter."""

    def __init__(self, module: str, linear: nn.Linear, route: Route) -> None:
        super().__init__()
        self.module = module
        self.linear = linear
        self.route = route

    def forward(self, x: Tensor) -> Tensor:
        """(rows, length, d_in) -> (rows, length, d_out)."""
        y: Tensor = self.linear(x)
        for run in self.route.segments:
            factors = run.adapter.modules.get(self.module)
            if factors is not None:
                some = x[run.first : run.last].reshape(-1, x.shape[-1])
                out = y[run.first : run.last].view(-1, y.shape[-1])
                torch.addmm(out, some @ factors[0], factors[1], out=out)
        return y
