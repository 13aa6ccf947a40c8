"""Where a run computes: on a CPU or on CUDA devices, in one process or in several."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from evomerge.connectors.local.training.errors import PlacementError

# What `load_base` spreads a model by; a training has a whole copy of it on each device instead.
_EVERY = ("auto", "balanced", "balanced_low_0", "sequential")


@dataclass(frozen=True)
class Placement:
    """Where a run computes.

    Attributes:
        device: of a run that is one process; of several, each has one of this kind for itself,
            the CUDA device of its own number, or they share the CPU.
        processes: that share each batch.
    """

    device: str
    processes: int

    @property
    def on_cpu(self) -> bool:
        """Whether the processes share a CPU."""
        return torch.device(self.device).type == "cpu"


def place(device: str, processes: int | None, batch_blocks: int) -> Placement:
    """Find the devices of a run.

    Args:
        device: auto or the name of a device map (every CUDA device, or the CPU), cpu, cuda, or
            cuda:1.
        processes: that share each batch; one a CUDA device by default, and one on a CPU.
        batch_blocks: rows of a batch, of which each process needs one.

    Raises:
        PlacementError: there is no such device, or not enough devices or rows for the processes.
    """
    devices = _devices(device)
    count = min(len(devices), batch_blocks) if processes is None else processes
    if count < 1:
        raise PlacementError("processes", count, "must be at least 1")
    if count > batch_blocks:
        raise PlacementError("processes", count, f"a batch has {batch_blocks} rows to share")
    placement = Placement(devices[0], count)
    if count > len(devices) and not placement.on_cpu:
        reason = f"device={device!r} gives {len(devices)} here, one for each process"
        raise PlacementError("processes", count, reason)
    return placement


def _devices(device: str) -> list[str]:
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device in _EVERY:
        return [f"cuda:{index}" for index in range(cuda)] or ["cpu"]
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise PlacementError("device", device, "is the name of no device") from error
    if found.type == "cuda" and (found.index or 0) >= cuda:
        raise PlacementError("device", device, f"there are {cuda} CUDA devices here")
    return [device]
