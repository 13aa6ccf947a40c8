"""Feature 5: optimizer and schedule continue or are reset; an averaged start forces reset."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.support.corpora import Grove

from evomerge.connectors.local.training.errors import OptimizerStateError
from evomerge.connectors.local.training.run import Elm, Progress, StoppedTrainingError


class Rates:
    """A watch that notes the learning rates."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def __call__(self, progress: Progress) -> bool:
        if progress.learning_rate is not None:
            self.seen.append(progress.learning_rate)
        return False


def optimizer_at_start(folder: Path) -> bool:
    return (folder / "optimizer").is_dir()


def test_continue_begins_with_the_parents_moments_and_goes_on_in_its_schedule(
    grove: Grove, forest: list[Elm]
) -> None:
    rates = Rates()
    trained = grove.branch(
        forest, "east", name="on", start="north", optimizer="continue", watch=rates
    )
    kept = load_file(grove.folder / "north" / "optimizer" / "state.safetensors")
    mine = load_file(grove.start("on") / "optimizer" / "state.safetensors")
    assert kept.keys() == mine.keys()
    assert all(torch.equal(kept[name], mine[name]) for name in kept)
    assert trained.lineage.optimizer == "continue"
    # North had 40 steps; these 12 are the last of 52, without a second warm-up.
    assert rates.seen == sorted(rates.seen, reverse=True)
    assert rates.seen[0] < 0.5 * 3e-3
    # The moments count on from the parent's steps.
    grove.branch(
        forest, "east", name="on2", start="north", optimizer="continue", keep_optimizer=True
    )
    after = load_file(grove.folder / "on2" / "optimizer" / "state.safetensors")
    steps = {float(value) for name, value in after.items() if name.startswith("step.")}
    assert steps == {40.0 + 12.0}


def test_reset_begins_anew(grove: Grove, forest: list[Elm]) -> None:
    rates = Rates()
    trained = grove.branch(
        forest, "east", name="anew", start="north", optimizer="reset", watch=rates
    )
    assert trained.lineage.optimizer == "reset"
    assert not optimizer_at_start(grove.start("anew"))
    assert max(rates.seen) == pytest.approx(3e-3)


def test_auto_continues_what_was_kept_and_resets_what_was_not(
    grove: Grove, forest: list[Elm]
) -> None:
    kept = grove.branch(forest, "east", name="auto-kept", start="north")
    assert kept.lineage.optimizer == "continue"
    grove.branch(forest, "west", name="bare", start="north", optimizer="reset")
    bare = grove.branch([*forest, grove.elm("bare", "west")], "east", name="more", start="bare")
    assert bare.lineage.optimizer == "reset"


def test_an_average_forces_reset(grove: Grove, forest: list[Elm]) -> None:
    trained = grove.branch(forest, "east", name="averaged", start="average")
    assert len(trained.parents) == 2
    assert trained.lineage.optimizer == "reset"
    assert not optimizer_at_start(grove.start("averaged"))


def test_continuing_an_average_is_an_error(grove: Grove, forest: list[Elm]) -> None:
    with pytest.raises(OptimizerStateError, match="an average of several ELMs"):
        grove.branch(forest, "east", name="never", start="average", optimizer="continue")
    assert not (grove.folder / "never").exists()
    assert not (grove.folder / "scratch" / "never").exists()


def test_continuing_without_a_kept_state_is_an_error(grove: Grove, forest: list[Elm]) -> None:
    grove.branch(forest, "west", name="bare2", start="north", optimizer="reset")
    bare = [*forest, grove.elm("bare2", "west")]
    with pytest.raises(OptimizerStateError, match="'bare2' was trained without keep_optimizer"):
        grove.branch(bare, "east", name="never2", start="bare2", optimizer="continue")
    assert not (grove.folder / "never2").exists()


def test_to_be_continued_means_a_copy_where_the_start_is_chosen(
    grove: Grove, forest: list[Elm]
) -> None:
    trained = grove.branch(forest, "east", name="chosen", optimizer="continue")
    assert list(trained.parents.values()) == [1.0]
    assert trained.lineage.optimizer == "continue"


def test_a_stopped_branch_keeps_its_policy(grove: Grove, forest: list[Elm]) -> None:
    def third(progress: Progress) -> bool:
        return progress.step == 3

    options = {"name": "paused", "start": "north", "optimizer": "continue"}
    with pytest.raises(StoppedTrainingError):
        grove.branch(forest, "east", watch=third, **options)
    stopped = grove.branch(forest, "east", **options)
    assert (
        stopped.content_hash
        == grove.branch(
            forest, "east", name="straight-on", start="north", optimizer="continue"
        ).content_hash
    )
