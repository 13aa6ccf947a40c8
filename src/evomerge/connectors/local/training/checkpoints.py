"""Resumable checkpoints of a run: each there whole or not at all, the last two kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from evomerge.connectors.local.training.errors import CheckpointStateError
from evomerge.connectors.local.training.saving import save_tensors
from evomerge.merging.storing import written_whole

_KEPT = 2
_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run needs to go on, to the bit.

    Attributes:
        folder: where it is.
        step: steps done.
        losses: of the last steps, nats a token.
        weights: by name, those of ties once.
        optimizer: see `optimizer_tensors`.
    """

    folder: Path
    step: int
    losses: tuple[float, ...]
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]


class Checkpoints:
    """The checkpoints of one run, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(
        self,
        step: int,
        losses: Sequence[float],
        weights: Mapping[str, Tensor],
        optimizer: Mapping[str, Tensor],
    ) -> None:
        """Write one; older ones than the last two go once it is on the disk.

        Args:
            step, losses, weights, optimizer: see `Checkpoint`.

        Raises:
            DiskFullError, ArtifactWriteError: writing failed; those before are still there.
        """
        with written_whole(self._folder / f"step-{step:09d}") as fresh:
            save_tensors(weights, fresh / _WEIGHTS)
            save_tensors(optimizer, fresh / _OPTIMIZER)
            state = {"step": step, "losses": list(losses)}
            (fresh / _STATE).write_text(json.dumps(state), encoding="utf-8")
        for old in self._folders()[:-_KEPT]:
            shutil.rmtree(old)

    def latest(self) -> Checkpoint | None:
        """The newest that can be read; None before the first.

        Raises:
            CheckpointStateError: there are some, none of which can be read.
        """
        failed: CheckpointStateError | None = None
        for folder in reversed(self._folders()):
            try:
                return _read(folder)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                failed = failed or CheckpointStateError(folder, f"cannot be read: {error!r}")
        if failed is not None:
            raise failed
        return None

    def _folders(self) -> list[Path]:
        return sorted(self._folder.glob("step-*"))


def _read(folder: Path) -> Checkpoint:
    state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    return Checkpoint(
        folder=folder,
        step=int(state["step"]),
        losses=tuple(float(loss) for loss in state["losses"]),
        weights=load_file(folder / _WEIGHTS),
        optimizer=load_file(folder / _OPTIMIZER),
    )
