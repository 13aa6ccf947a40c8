"""Recipes: whole batches, learning rates by step, and fields that are refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.connectors.local.training.errors import RecipeError
from evomerge.connectors.local.training.recipe import Recipe, Schedule
from evomerge.evaluation.corpus import ShareError

RECIPE = Recipe(tokens=100 * 64, block_tokens=16, batch_blocks=4, learning_rate=1.0)


def test_whole_batches_are_taken_and_the_rest_is_left() -> None:
    recipe = replace(RECIPE, tokens=64 * 3 + 63)
    assert (recipe.steps, recipe.own_tokens, recipe.batch_tokens) == (3, 192, 64)


@pytest.mark.parametrize(
    ("schedule", "middle", "last"), [("cosine", 0.55, 0.1), ("linear", 0.55, 0.1)]
)
def test_rates_rise_then_fall_to_a_tenth(schedule: Schedule, middle: float, last: float) -> None:
    recipe = replace(RECIPE, schedule=schedule, warmup_share=0.1)
    rates = [recipe.rate(step) for step in range(recipe.steps)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert rates[55] == pytest.approx(middle, abs=0.01)
    assert rates[-1] == pytest.approx(last, abs=0.02)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_constant_rate_stays() -> None:
    recipe = replace(RECIPE, schedule="constant", warmup_share=0)
    assert {recipe.rate(step) for step in range(recipe.steps)} == {1.0}


@given(
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    seed_steps=st.integers(1, 60),
    own_steps=st.integers(1, 60),
)
def test_a_schedule_that_spans_seed_and_branch_is_one_run_s(
    schedule: Schedule, seed_steps: int, own_steps: int
) -> None:
    total = (seed_steps + own_steps) * 64
    whole = replace(RECIPE, schedule=schedule, tokens=total)
    first = replace(whole, tokens=seed_steps * 64, schedule_tokens=total)
    second = replace(whole, tokens=own_steps * 64)
    rates = [first.rate(step) for step in range(seed_steps)]
    rates += [second.rate(step, done=seed_steps) for step in range(own_steps)]
    assert rates == [whole.rate(step) for step in range(whole.steps)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": 63}, "tokens=63: must be at least one batch, 64 tokens"),
        ({"block_tokens": 0}, "block_tokens=0"),
        ({"batch_blocks": 0}, "batch_blocks=0"),
        ({"checkpoint_steps": 0}, "checkpoint_steps=0"),
        ({"micro_blocks": 0}, "micro_blocks=0"),
        ({"seed": -1}, "seed=-1"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0"),
        ({"learning_rate": float("inf")}, "learning_rate=inf"),
        ({"learning_rate": float("nan")}, "learning_rate=nan"),
        ({"clip": -1.0}, r"clip=-1\.0"),
        ({"warmup_share": 1.0}, r"warmup_share=1\.0"),
        ({"weight_decay": -0.1}, r"weight_decay=-0\.1"),
        ({"schedule": "step"}, "schedule='step': must be one of cosine, linear, constant"),
        ({"precision": "float16"}, "precision='float16': must be one of auto, float32, bfloat16"),
        ({"schedule_tokens": 6399}, "schedule_tokens=6399: must be at least the run's own 6400"),
    ],
)
def test_fields_out_of_range_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        replace(RECIPE, **changes)


def test_shares_are_checked_with_the_recipe() -> None:
    with pytest.raises(ShareError, match=r"dev_share=0\.6"):
        replace(RECIPE, dev_share=0.6, test_share=0.4)
