"""Feature 3: a branch from a weighted average equals the hand-computed sum of tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.support.elms import make_elm, tensors_of
from tests.support.tiny import make_base
from transformers import AutoModelForCausalLM

from evomerge.merging.checkpoint.average import average

WEIGHTS = (0.6, 0.3, 0.1)


def test_branch_from_a_weighted_average_equals_the_sum_of_tensors(tmp_path: Path) -> None:
    seed = make_base(tmp_path / "seed")
    elms = [make_elm(tmp_path / f"elm{number}", seed, number) for number in range(3)]
    average(elms, WEIGHTS, tmp_path / "start")
    parents = [tensors_of(elm) for elm in elms]
    start = AutoModelForCausalLM.from_pretrained(tmp_path / "start")
    for name, value in start.named_parameters():
        by_hand = sum(
            weight * own[name].double() for weight, own in zip(WEIGHTS, parents, strict=True)
        )
        torch.testing.assert_close(value.double(), by_hand, rtol=1e-7, atol=1e-12)
        assert not any(torch.equal(value, own[name]) for own in parents)
