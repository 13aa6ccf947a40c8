"""Statistics on numbers whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.evidence.records import Record
from benchmarks.evidence.statistics import lead, margin, measured, tokens_to_reach
from tests.support.evidence import record

TASKS, SEEDS, ROWS = ("a", "b", "c", "d", "e", "f"), (1, 2, 3), 40


def records(means: dict[str, float], noise: float = 0.1) -> list[Record]:
    """Rows around a mean of each method; half of the noise is the row's own, for all methods."""
    rng = np.random.default_rng(1)
    own = {task: rng.normal(0, noise, ROWS) for task in TASKS}
    return [
        record(name, task, seed, (mean + own[task] + rng.normal(0, noise, ROWS)).tolist())
        for name, mean in means.items()
        for task in TASKS
        for seed in SEEDS
    ]


def test_means_count_each_task_the_same() -> None:
    made = [record("x", "a", 1, [1.0] * 30), record("x", "b", 1, [0.0] * 2)]
    found = measured(made)
    assert found.score("x") == 0.5
    assert found.loss("x") == pytest.approx(0.5)
    assert found.by_score("x")["x"].mean == pytest.approx(0.5)


def test_tasks_of_one_record_are_taken_apart() -> None:
    made = [record("x", "all", 1, [1.0, 1.0, 0.0], tasks=["a", "b"], sizes=[2, 1])]
    found = measured(made)
    assert found.tasks == ("a", "b")
    assert (found.task_score("x", "a"), found.task_score("x", "b")) == (1.0, 0.0)


def test_a_clear_lead_is_seen_by_every_test() -> None:
    found = measured(records({"default": 0.6, "other": 0.5}))
    value, interval = lead(found, "default", "other")
    assert value == pytest.approx(0.1, abs=0.03)
    assert interval is not None
    assert 0 < interval.low < value < interval.high
    p_value = found.by_score("default")["other"].p_value
    assert p_value is not None
    assert p_value < 0.001
    assert found.p_over_tasks("default", "other") == pytest.approx(2 / 2**6)


def test_no_lead_is_found_where_there_is_none() -> None:
    found = measured(records({"default": 0.5, "other": 0.5}))
    _, interval = lead(found, "default", "other")
    assert interval is not None
    assert interval.low < 0 < interval.high
    p_value = found.by_score("default")["other"].p_value
    assert p_value is not None
    assert p_value > 0.05


def test_the_margin_is_that_of_gains_over_base() -> None:
    found = measured(records({"default": 0.7, "lorahub": 0.5, "base": 0.2}))
    result = margin(found, "default", "lorahub")
    assert result is not None
    value, interval = result
    assert value == pytest.approx(0.5 / 0.3 - 1, abs=0.1)
    assert interval is not None
    assert interval.low < value < interval.high


def test_there_is_no_margin_over_who_gains_nothing() -> None:
    found = measured(records({"default": 0.7, "lorahub": 0.1, "base": 0.2}))
    assert margin(found, "default", "lorahub") is None


def test_tokens_to_reach_are_shares_of_the_others() -> None:
    fast = record("default", "a", 1, [1.0], curve=[[100, 1.5, 1.4], [300, 0.9, 1.4]])
    slow = record("default", "b", 1, [1.0], curve=[[100, 1.5, 3.0]])
    theirs = {(case, 1): record("paper", case, 1, [1.0]) for case in "ab"}
    mine = {("a", 1): fast, ("b", 1): slow}
    held_out, search = (tokens_to_reach(mine, theirs, column) for column in (2, 1))
    assert held_out.shares == (0.1, np.inf)
    assert search.shares == (0.3, np.inf)
    assert (held_out.never, held_out.median) == (1, np.inf)


def test_methods_on_other_rows_are_not_compared() -> None:
    with pytest.raises(ValueError, match="other rows"):
        measured([record("x", "a", 1, [1.0]), record("y", "a", 1, [1.0, 0.0])])
    with pytest.raises(ValueError, match="same tasks and seeds"):
        measured([record("x", "a", 1, [1.0]), record("x", "b", 1, [1.0]), record("y", "a", 1, [1])])
