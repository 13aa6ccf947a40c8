"""One run in several processes: the rows of each batch shared, everything else as in one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.support.corpora import ARCHITECTURE, RECIPE, make_corpus

from evomerge.connectors.local.training.errors import LostRankError
from evomerge.connectors.local.training.ranks import held_together
from evomerge.connectors.local.training.run import (
    Progress,
    StoppedTrainingError,
    Trained,
    Watch,
    train_seed,
    unwatched,
)


def run(tmp_path: Path, name: str, processes: int, watch: Watch = unwatched) -> Trained:
    return train_seed(
        [make_corpus(tmp_path, "east"), make_corpus(tmp_path, "west")],
        ARCHITECTURE,
        RECIPE,
        scratch=tmp_path / "scratch" / name,
        out=tmp_path / name,
        watch=watch,
        threads=1,
        processes=processes,
    )


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return load_file(trained.folder / "model.safetensors")


def test_three_processes_train_what_one_does_and_go_on_after_a_stop(tmp_path: Path) -> None:
    """Three share four rows unequally; a stop at a step is every process's stop."""
    alone = run(tmp_path, "alone", 1)
    steps: list[int] = []

    def at_seven(progress: Progress) -> bool:
        if progress.phase == "training":
            steps.append(progress.step)
        return progress.step == 7

    with pytest.raises(StoppedTrainingError, match="after step 7"):
        run(tmp_path, "shared", 3, at_seven)
    assert steps == list(range(8))
    shared = run(tmp_path, "shared", 3)
    assert shared.train_loss == pytest.approx(alone.train_loss, rel=1e-5)
    assert shared.dev_losses == pytest.approx(alone.dev_losses, rel=1e-5)
    one, other = weights(alone), weights(shared)
    assert one.keys() == other.keys()
    # The sums were in another order, so that this was not one process three times.
    assert shared.content_hash != alone.content_hash
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)
    # Nothing of the group is left: the next run in this process is alone again, to the bit.
    assert not torch.distributed.is_initialized()
    assert "WORLD_SIZE" not in os.environ
    assert run(tmp_path, "again", 1).content_hash == alone.content_hash


def ended(code: int) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"], text=True)
    process.wait()
    return process


def test_a_lost_process_ends_the_run() -> None:
    assert not held_together(unwatched, [ended(0), ended(0)])(Progress("training"))
    with pytest.raises(LostRankError, match="process 2 of the training ended with 3"):
        held_together(unwatched, [ended(0), ended(3)])(Progress("training"))
