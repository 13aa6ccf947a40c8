"""Pools of LoRA experts made ready, and kept for the next job over the same ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.settings import Settings
from evomerge.app.worker.errors import InputChangedError, JobError
from evomerge.app.worker.workbench import Workbench

if TYPE_CHECKING:
    import torch

    from evomerge.connectors.local.base_model import BaseModel
    from evomerge.merging.lora.pool import LoraPool

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """The values last made, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[K, V] = OrderedDict()

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key; the oldest one makes room before a new one is made."""
        if key in self._values:
            self._values.move_to_end(key)
            return self._values[key]
        while len(self._values) >= self._size:
            self._values.popitem(last=False)
        self._values[key] = make()
        return self._values[key]


class LoraBenches:
    """Makes benches; loading takes seconds, so the last base and pool stay in memory.

    For one thread at a time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._bases: Recent[Hashable, BaseModel] = Recent(1)
        self._pools: Recent[Hashable, LoraPool] = Recent(1)

    def warm_up(self) -> None:
        """Import what the first job will need, where it is installed.

        Before a job is claimed: importing torch can hold every thread of the process for
        seconds, the heartbeat's too.
        """
        with suppress(ModuleNotFoundError):
            import evomerge.app.worker.rule_bench  # noqa: F401

    def bench(self, spec: MergeJobSpec, inputs: JobInputs) -> Workbench:
        """The pool of a job, loaded and checked.

        Raises:
            JobError: the base is not in this worker's settings, or it or an adapter has changed.
            ConnectorError: the base cannot be loaded.
            MergingError: an adapter cannot be read.
        """
        # Here, not above: the service must do without torch until a job needs it.
        from evomerge.app.worker.rule_bench import adapter_bench

        base = self._bases.get((inputs.base, inputs.base_hash), lambda: self._load_base(inputs))
        return adapter_bench(base, self.pool(spec, inputs, base.device), spec, self._settings)

    def pool(self, spec: MergeJobSpec, inputs: JobInputs, device: torch.device) -> LoraPool:
        """The experts of a job alone, checked.

        Raises:
            JobError: an adapter has changed.
            MergingError: an adapter cannot be read.
        """
        hashes = tuple(expert.content_hash for expert in inputs.experts)
        key = (inputs.base, spec.layer_groups, hashes, str(device))
        return self._pools.get(key, lambda: _stack(spec, inputs, device))

    def folder(self, inputs: JobInputs) -> Path:
        """Where a job's base is.

        Raises:
            JobError: it is not in this worker's settings.
        """
        name = inputs.base_name
        folder = self._settings.bases.get(name)
        if folder is None:
            raise JobError(
                "unknown_base",
                f"base model {name!r} is not among this worker's EVOMERGE_BASES "
                f"({', '.join(sorted(self._settings.bases)) or 'none'})",
            )
        return folder

    def _load_base(self, inputs: JobInputs) -> BaseModel:
        from evomerge.connectors.local.base_model import load_base

        name = inputs.base_name
        base = load_base(
            self.folder(inputs),
            name=name,
            device=self._settings.device,
            dtype=self._settings.dtype,
            threads=self._settings.threads,
        )
        if inputs.base_hash not in (None, base.content_hash):
            raise InputChangedError(f"base model {name!r}", "has changed")
        return base


def _stack(spec: MergeJobSpec, inputs: JobInputs, device: torch.device) -> LoraPool:
    from evomerge.merging.lora.pool import stack_folders

    pool = stack_folders(inputs.folders, spec.layer_groups, device=device)
    for expert, found in zip(inputs.experts, pool.content_hashes, strict=True):
        if found != expert.content_hash:
            raise InputChangedError(f"the adapter of expert {expert.name!r}", "has changed")
    return pool
