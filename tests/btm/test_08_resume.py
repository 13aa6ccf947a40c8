"""Feature 8: a run that was killed and called again is bit-equal to one without a break."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tests.support.corpora import RECIPE, Grove, bytes_of
from tests.support.killed_runs import run_killed_after_step, run_killed_at_write

from evomerge.connectors.local.training.run import (
    Elm,
    Progress,
    StoppedTrainingError,
    Trained,
)

NAME = "steppe"


def straight(tmp_path: Path, seed: Elm) -> tuple[Grove, Trained]:
    grove = Grove(tmp_path / "straight")
    return grove, grove.branch([seed], NAME, keep_optimizer=True)


def assert_same(tmp_path: Path, seed: Elm, other: Grove) -> None:
    """Finish the other run here; all that it wrote is what the straight one wrote."""
    grove, whole = straight(tmp_path, seed)
    resumed = other.branch([seed], NAME, keep_optimizer=True)
    assert bytes_of(other.folder / NAME) == bytes_of(grove.folder / NAME)
    assert resumed.content_hash == whole.content_hash
    assert resumed.train_loss == whole.train_loss
    assert resumed.dev_losses == whole.dev_losses
    for folder in (other.folder, other.folder / "scratch" / NAME):
        assert not [path.name for path in folder.rglob(".*")]
    kept = sorted(path.name for path in (other.folder / "scratch" / NAME / "checkpoints").iterdir())
    assert kept == ["step-000000010", "step-000000012"]


def test_killed_at_random_steps(tmp_path: Path, seed: Elm) -> None:
    grove = Grove(tmp_path / "killed")
    draw = random.Random(7)
    for step in sorted(draw.sample(range(1, RECIPE.steps), 4)):
        run_killed_after_step(grove.folder, seed, NAME, step)
        assert not (grove.folder / NAME).exists()
    assert_same(tmp_path, seed, grove)


@pytest.mark.parametrize("chance", range(2))
def test_killed_while_anything_is_written(tmp_path: Path, seed: Elm, chance: int) -> None:
    """Each process dies at one of its first writes, later and later, inside checkpoints too."""
    grove = Grove(tmp_path / "killed")
    draw = random.Random(chance)
    kills = 0
    for most in (4, 12, 30, 50, 50, 50):
        kills += run_killed_at_write(grove.folder, seed, NAME, draw.randint(1, most))
    assert kills >= 4
    assert_same(tmp_path, seed, grove)


def test_stopped_by_the_watch_at_every_step(tmp_path: Path, seed: Elm) -> None:
    grove = Grove(tmp_path / "stopped")
    told: list[int] = []

    def next_step(progress: Progress) -> bool:
        if progress.phase == "training" and progress.step not in told:
            told.append(progress.step)
            return True
        return False

    for step in range(RECIPE.steps + 1):
        with pytest.raises(StoppedTrainingError, match=rf"after step {step}$"):
            grove.branch([seed], NAME, watch=next_step, keep_optimizer=True)
    grove.branch([seed], NAME, watch=next_step, keep_optimizer=True)
    assert told == list(range(RECIPE.steps + 1))
    checkpoints = grove.folder / "scratch" / NAME / "checkpoints"
    assert len(list(checkpoints.iterdir())) == 2
    whole = straight(tmp_path, seed)[0]
    assert bytes_of(grove.folder / NAME) == bytes_of(whole.folder / NAME)


def test_called_again_after_its_end_it_gives_the_same(tmp_path: Path, seed: Elm) -> None:
    grove, whole = straight(tmp_path, seed)
    before = bytes_of(grove.folder / NAME)
    again = grove.branch([seed], NAME, keep_optimizer=True)
    assert again == whole
    assert bytes_of(grove.folder / NAME) == before


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, seed: Elm
) -> None:
    def at_the_end(progress: Progress) -> bool:
        return progress.step == RECIPE.steps

    grove = Grove(tmp_path / "damaged")
    with pytest.raises(StoppedTrainingError):
        grove.branch([seed], NAME, watch=at_the_end, keep_optimizer=True)
    checkpoints = grove.folder / "scratch" / NAME / "checkpoints"
    newest = max(checkpoints.iterdir()) / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-7])
    assert_same(tmp_path, seed, grove)
