"""The comparison of contenders with the winner."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.intervals import bootstrap_interval
from evomerge.evaluation.objective import Objective
from evomerge.evaluation.report import compare
from evomerge.evaluation.significance import paired_p_value

RNG = np.random.default_rng(0)
WINNER = RNG.exponential(size=30)
BASE = WINNER + RNG.normal(0.5, 0.2, size=30)
WEIGHTS = RNG.integers(1, 9, size=30).astype(float)
OBJECTIVE = Objective((20, 10), (3.0, 1.0))


def test_every_number_is_that_of_the_functions_alone() -> None:
    report = compare({"winner": WINNER, "base": BASE}, WEIGHTS, OBJECTIVE, seed=9)
    winner, base = report["winner"], report["base"]
    assert report.examples == 30
    assert winner.mean == pytest.approx(OBJECTIVE.means(WINNER, WEIGHTS))
    assert base.mean == pytest.approx(OBJECTIVE.means(BASE, WEIGHTS))
    assert base.dataset_means == pytest.approx(
        (np.average(BASE[:20], weights=WEIGHTS[:20]), np.average(BASE[20:], weights=WEIGHTS[20:]))
    )
    assert base.mean is not None
    assert winner.mean is not None
    assert base.difference == pytest.approx(base.mean - winner.mean)
    assert base.p_value == paired_p_value(BASE, WINNER, WEIGHTS, OBJECTIVE, seed=9)
    for found, losses in (
        (winner.interval, WINNER),
        (base.interval, BASE),
        (base.difference_interval, BASE - WINNER),
    ):
        alone = bootstrap_interval(losses, WEIGHTS, OBJECTIVE, seed=9)
        assert found is not None
        assert alone is not None
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_pairs_make_the_difference_sharper_than_the_means() -> None:
    base = compare({"winner": WINNER, "base": BASE}, WEIGHTS, seed=0)["base"]
    assert base.interval is not None
    assert base.difference_interval is not None
    assert base.difference_interval.low > 0
    width = base.difference_interval.high - base.difference_interval.low
    assert width < (base.interval.high - base.interval.low) / 2
    assert base.p_value is not None
    assert base.p_value < 0.001


def test_the_winner_is_not_compared_with_itself() -> None:
    winner = compare({"base": BASE, "best": WINNER}, WEIGHTS, winner="best", seed=0)["best"]
    assert (winner.difference, winner.difference_interval, winner.p_value) == (None, None, None)


def test_contenders_keep_their_order_and_a_twin_of_the_winner_differs_by_nothing() -> None:
    losses = {"uniform": BASE, "winner": WINNER, "twin": WINNER.copy()}
    report = compare(losses, WEIGHTS, seed=0)
    assert [contender.name for contender in report.contenders] == ["uniform", "winner", "twin"]
    twin = report["twin"]
    assert (twin.difference, twin.p_value) == (0.0, 1.0)
    assert twin.difference_interval is not None
    assert twin.difference_interval.low == twin.difference_interval.high == 0.0


def test_one_example_gives_means_without_intervals() -> None:
    losses = {"winner": np.array([1.0]), "base": np.array([3.0])}
    base = compare(losses, np.array([4.0]), seed=0)["base"]
    assert (base.mean, base.interval) == (3.0, None)
    assert (base.difference, base.difference_interval, base.p_value) == (2.0, None, 1.0)


def test_a_broken_contender_has_no_numbers_and_spoils_no_other() -> None:
    broken = BASE.copy()
    broken[25] = np.nan
    losses = {"winner": WINNER, "base": broken, "uniform": BASE}
    report = compare(losses, WEIGHTS, OBJECTIVE, seed=0)
    base = report["base"]
    assert (base.mean, base.interval, base.difference, base.p_value) == (None, None, None, None)
    assert base.dataset_means[0] is not None
    assert base.dataset_means[1] is None
    whole = compare({"winner": WINNER, "uniform": BASE}, WEIGHTS, OBJECTIVE, seed=0)
    assert report["uniform"].interval == whole["uniform"].interval


def test_an_example_without_weight_is_not_counted() -> None:
    weights = np.array([1.0, 1.0, 0.0])
    losses = {"winner": np.array([1.0, 2.0, np.nan]), "base": np.array([2.0, 4.0, np.inf])}
    report = compare(losses, weights, seed=0)
    assert report.examples == 2
    assert report["base"].mean == 3.0
    assert report["base"].difference == 1.5


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InvalidArgumentError, match="winner='best': is none of base"):
        compare({"base": BASE}, WEIGHTS, winner="best", seed=0)
    with pytest.raises(InvalidArgumentError, match=r"losses\[base\]"):
        compare({"winner": WINNER, "base": BASE[:5]}, WEIGHTS, seed=0)
    with pytest.raises(KeyError):
        compare({"winner": WINNER}, WEIGHTS, seed=0)["base"]
