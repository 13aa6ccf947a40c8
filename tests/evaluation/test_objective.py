"""One loss out of several datasets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.connectors.base import Scores
from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.objective import Objective

LOSSES = np.array([[1.0, 3.0, 10.0], [2.0, 2.0, 4.0]])
WEIGHTS = np.array([1.0, 3.0, 5.0])


def test_the_objective_by_hand() -> None:
    # Dataset 0: (1*1 + 3*3) / 4 = 2.5 and 2; dataset 1: 10 and 4; shares 2/3 and 1/3.
    objective = Objective((2, 1), (2.0, 1.0))
    np.testing.assert_allclose(objective.means(LOSSES, WEIGHTS), [15 / 3, 8 / 3])
    np.testing.assert_allclose(objective.dataset_means(LOSSES, WEIGHTS), [[2.5, 10], [2, 4]])
    np.testing.assert_allclose(
        objective.example_weights(WEIGHTS), [2 / 3 / 4, 2 / 3 * 3 / 4, 1 / 3]
    )


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4).flatmap(
        lambda sizes: st.tuples(
            st.just(tuple(sizes)),
            st.lists(st.floats(0.1, 10), min_size=len(sizes), max_size=len(sizes)).map(tuple),
            st.lists(st.floats(0.1, 50), min_size=sum(sizes), max_size=sum(sizes)),
            st.lists(st.floats(-5, 5), min_size=sum(sizes), max_size=sum(sizes)),
        )
    )
)
def test_one_evaluator_call_over_all_examples_gives_the_weighted_mean_of_dataset_means(
    case: tuple[tuple[int, ...], tuple[float, ...], list[float], list[float]],
) -> None:
    sizes, v, w, losses = case
    objective = Objective(sizes, v)
    combined = Scores(np.array([losses]), objective.example_weights(np.array(w))).means()
    ends = np.cumsum(sizes)
    means = [
        np.average(losses[end - size : end], weights=w[end - size : end])
        for end, size in zip(ends, sizes, strict=True)
    ]
    np.testing.assert_allclose(combined, [np.average(means, weights=v)], atol=1e-12)
    assert objective.example_weights(np.array(w)).sum() == pytest.approx(1)


def test_a_dataset_alone_is_its_own_objective() -> None:
    assert Objective((3,)).means(LOSSES[0], WEIGHTS) == pytest.approx(60 / 9)


def test_a_broken_loss_stays_visible() -> None:
    means = Objective((3,)).means(np.array([[1.0, np.nan, 1.0], [1.0, 1.0, 1.0]]), np.ones(3))
    assert np.isnan(means[0])
    assert means[1] == 1


@pytest.mark.parametrize(
    ("sizes", "weights", "message"),
    [
        ((), (), "sizes"),
        ((2, 0), (), r"sizes\[1\]=0"),
        ((2,), (1.0, 2.0), "as many as"),
        ((2, 1), (1.0, 0.0), r"weights\[1\]=0.0"),
        ((2, 1), (1.0, float("inf")), r"weights\[1\]=inf"),
    ],
)
def test_a_bad_objective_is_refused(
    sizes: tuple[int, ...], weights: tuple[float, ...], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Objective(sizes, weights)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 1.0], "must have shape"),
        ([1.0, -1.0, 1.0], r"weights\[1\]=-1.0"),
        ([1.0, 1.0, float("nan")], r"weights\[2\]=nan"),
        ([1.0, 1.0, 0.0], "dataset 1 have no weight"),
    ],
)
def test_bad_example_weights_are_refused(weights: list[float], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        Objective((2, 1)).example_weights(np.array(weights))


def test_losses_of_another_length_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="losses"):
        Objective((2, 1)).means(np.ones((4, 2)), np.ones(3))
