"""Resumable checkpoints: whole, the last two, the newest that can be read."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest
import torch

from evomerge.connectors.local.training.checkpoints import Checkpoints
from evomerge.connectors.local.training.errors import CheckpointStateError
from evomerge.merging.errors import ArtifactWriteError


def save(checkpoints: Checkpoints, step: int) -> None:
    weights = {"a": torch.full((3, 2), 1 / 3 + step), "b": torch.ones(4)[::2]}
    checkpoints.save(step, [0.1, 1 / 3], weights, {"exp_avg.a": torch.zeros(3, 2)})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_read_again_to_the_bit(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    save(checkpoints, 5)
    latest = checkpoints.latest()
    assert latest is not None
    assert (latest.step, latest.losses) == (5, (0.1, 1 / 3))
    assert torch.equal(latest.weights["a"], torch.full((3, 2), 1 / 3 + 5))
    assert torch.equal(latest.weights["b"], torch.ones(2))
    assert latest.optimizer.keys() == {"exp_avg.a"}


def test_the_last_two_are_kept_in_the_order_of_steps(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (9, 10, 100):
        save(checkpoints, step)
    assert names(tmp_path) == ["step-000000010", "step-000000100"]


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        save(checkpoints, step)
    path = tmp_path / "step-000000002" / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.step == 1
    (tmp_path / "step-000000001" / file).write_bytes(b"")
    with pytest.raises(CheckpointStateError, match="step-000000002: cannot be read"):
        checkpoints.latest()


def test_a_disk_that_refuses_leaves_those_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        save(checkpoints, step)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ArtifactWriteError) as refused:
            checkpoints.save(3, [], {"a": torch.ones(10_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.errno == errno.EFBIG
    assert names(tmp_path) == ["step-000000001", "step-000000002"]
