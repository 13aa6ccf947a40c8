"""The sign-flip test: by hand, against scipy, and at its edges."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.objective import Objective
from evomerge.evaluation.significance import paired_p_value


def test_by_hand_three_differences_of_one_sign() -> None:
    # Of the 8 patterns only +++ and --- are as far from zero.
    assert paired_p_value(np.array([2.0, 3, 4]), np.ones(3), np.ones(3), seed=0) == 2 / 8


def test_by_hand_with_weights() -> None:
    # Weighted differences 3, -1, 1: |sum| = 3 or more for +++ +-+ ++- and their mirrors.
    first = np.array([1.0, -1.0, 1.0])
    assert paired_p_value(first, np.zeros(3), np.array([3.0, 1, 1]), seed=0) == 6 / 8


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=6).flatmap(
        lambda losses: st.tuples(
            st.just(losses),
            st.lists(st.integers(1, 5), min_size=len(losses), max_size=len(losses)),
        )
    )
)
def test_exact_p_values_are_those_of_plain_enumeration(case: tuple[list[int], list[int]]) -> None:
    differences, weights = case
    observed = abs(sum(w * d for w, d in zip(weights, differences, strict=True)))
    sums = [
        abs(sum(s * w * d for s, w, d in zip(signs, weights, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    expected = sum(total >= observed for total in sums) / len(sums)
    first, second = np.array(differences, float), np.zeros(len(differences))
    assert paired_p_value(first, second, np.array(weights, float), seed=0) == expected


@pytest.mark.parametrize("n", [8, 60])
def test_it_agrees_with_scipys_paired_permutation_test(n: int) -> None:
    """Exactly where all patterns are tried, else up to Monte Carlo error (both 1e4 draws)."""
    rng = np.random.default_rng(5)
    first = rng.normal(0.25, 1, size=n)
    second = rng.normal(0, 1, size=n)
    theirs = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9_999,
        rng=2,
    ).pvalue
    ours = paired_p_value(first, second, np.ones(n), seed=1)
    assert ours == pytest.approx(theirs, abs=1e-12 if n == 8 else 0.02)


def test_random_patterns_come_near_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    first, second, weights = rng.normal(0.5, 1, 12), np.zeros(12), rng.uniform(1, 3, 12)
    exact = paired_p_value(first, second, weights, seed=0)
    monkeypatch.setattr("evomerge.evaluation.significance.EXACT_UP_TO", 0)
    drawn = paired_p_value(first, second, weights, seed=0)
    assert drawn != exact
    assert drawn == pytest.approx(exact, abs=0.02)


def test_several_datasets_are_weighed_as_the_objective_weighs_them() -> None:
    # Terms 1/4, 1/4 and -1: no pattern comes nearer to zero than the observed 1/2.
    first, objective = np.array([1.0, 1.0, -2.0]), Objective((2, 1))
    assert paired_p_value(first, np.zeros(3), np.ones(3), objective, seed=0) == 1.0
    # A light second dataset leaves the first to speak: its signs must be equal, half of all.
    light = Objective((2, 1), (1.0, 1e-6))
    assert paired_p_value(first, np.zeros(3), np.ones(3), light, seed=0) == 0.5


def test_p_is_uniform_where_nothing_differs_but_chance() -> None:
    rng = np.random.default_rng(4)
    p = [paired_p_value(a, b, np.ones(10), seed=0) for a, b in rng.exponential(size=(400, 2, 10))]
    found = np.array(p, float)
    assert np.mean(found <= 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(found <= 0.5) == pytest.approx(0.5, abs=0.08)


def test_a_clear_difference_of_many_examples_is_never_p_zero() -> None:
    p = paired_p_value(np.ones(200), np.zeros(200), np.ones(200), seed=0, patterns=999)
    assert p == 1 / 1000


@pytest.mark.parametrize("n", [1, 5, 300])
def test_no_difference_is_p_one(n: int) -> None:
    losses = np.arange(float(n))
    assert paired_p_value(losses, losses, np.ones(n), seed=0) == 1.0


def test_examples_without_a_difference_leave_the_few_others_exact() -> None:
    first = np.zeros(400)
    first[[3, 90, 399]] = 1.0, 2.0, 3.0
    assert paired_p_value(first, np.zeros(400), np.ones(400), seed=0) == 2 / 8


def test_one_example_can_tell_nothing() -> None:
    assert paired_p_value(np.array([9.0]), np.array([0.0]), np.ones(1), seed=0) == 1.0


def test_a_broken_loss_has_no_p_value_unless_it_has_no_weight() -> None:
    broken = np.array([np.nan, 1.0])
    assert paired_p_value(broken, np.zeros(2), np.ones(2), seed=0) is None
    assert paired_p_value(np.zeros(2), broken, np.ones(2), seed=0) is None
    assert paired_p_value(broken, np.zeros(2), np.array([0.0, 1.0]), seed=0) == 1.0


def test_the_same_seed_gives_the_same_p_value() -> None:
    losses = np.random.default_rng(1).normal(size=50)
    values = [paired_p_value(losses, np.zeros(50), np.ones(50), seed=s) for s in (3, 3, 4)]
    assert values[0] == values[1] != values[2]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InvalidArgumentError, match="patterns=0"):
        paired_p_value(np.ones(2), np.ones(2), np.ones(2), seed=0, patterns=0)
    with pytest.raises(InvalidArgumentError, match="second"):
        paired_p_value(np.ones(2), np.ones(3), np.ones(2), seed=0)
    with pytest.raises(InvalidArgumentError, match="weights"):
        paired_p_value(np.ones(2), np.ones(2), np.ones(3), seed=0)
