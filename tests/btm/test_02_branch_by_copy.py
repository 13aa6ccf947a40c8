"""Feature 2: a branch by copy gives, before its first step, the logits of its parent."""

from __future__ import annotations

import pytest
import torch
from tests.support.corpora import Grove

from evomerge.connectors.local.training.run import Elm, Progress, StoppedTrainingError
from evomerge.connectors.local.training.start import load_model


def test_logits_before_the_first_step_are_the_parents(grove: Grove, forest: list[Elm]) -> None:
    def at_once(progress: Progress) -> bool:
        return progress.phase == "training"

    with pytest.raises(StoppedTrainingError, match="after step 0"):
        grove.branch(forest, "east", name="copied", start="south", watch=at_once)
    tokens = torch.arange(24)[None]
    with torch.inference_mode():
        own = load_model(grove.start("copied"))(tokens).logits
        parent = load_model(grove.folder / "south")(tokens).logits
        other = load_model(grove.folder / "north")(tokens).logits
    assert torch.equal(own, parent)
    assert not torch.equal(own, other)
