"""Balanced assignment, against a solver of single places."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from evomerge.merging.forest.balance import balanced
from evomerge.merging.forest.errors import ClusterError


@st.composite
def problems(draw: st.DrawFn) -> np.ndarray:
    """Costs (m, k): of points and centres, of anything, and with ties and copies."""
    clusters = draw(st.integers(1, 6))
    documents = draw(st.integers(clusters, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    points, centres = random.normal(size=(documents, 2)), 3 * random.normal(size=(clusters, 2))
    kind = draw(st.sampled_from(["distances", "anything", "ties", "copies"]))
    if kind == "distances":
        return ((points[:, None] - centres) ** 2).sum(axis=-1)
    if kind == "anything":
        return random.normal(size=(documents, clusters)) * 10.0 ** draw(st.integers(-6, 6))
    if kind == "ties":
        return random.integers(0, 3, (documents, clusters)).astype(float)
    return np.tile(random.random(clusters), (documents, 1))


def least(costs: np.ndarray, sizes: np.ndarray) -> float:
    """What the cheapest assignment to clusters of these sizes costs."""
    places = np.repeat(np.arange(len(sizes)), sizes)
    rows, columns = linear_sum_assignment(costs[:, places])
    return float(costs[rows, places[columns]].sum())


@given(problems(), st.booleans())
def test_sizes_are_within_one_and_nothing_costs_less(costs: np.ndarray, warm: bool) -> None:
    documents, clusters = costs.shape
    given_prices = np.linspace(-1, 1, clusters) if warm else None
    labels, prices = balanced(costs, given_prices)
    sizes = np.bincount(labels, minlength=clusters)
    assert sizes.sum() == documents
    assert sizes.max() - sizes.min() <= 1
    assert prices.shape == (clusters,)
    found = costs[np.arange(documents), labels].sum()
    slack = 1e-9 * np.abs(costs).max()
    assert found == pytest.approx(least(costs, sizes), abs=slack)


def test_hundreds_in_the_wrong_cluster_are_moved() -> None:
    """Almost all documents would rather be in one cluster."""
    random = np.random.default_rng(1)
    costs = random.random((400, 8))
    costs[:, 0] -= 5.0
    labels, _ = balanced(costs)
    assert np.bincount(labels).tolist() == [50] * 8
    assert costs[np.arange(400), labels].sum() == pytest.approx(least(costs, np.full(8, 50)))


def test_thousands_of_copies_are_moved_together() -> None:
    labels, _ = balanced(np.zeros((4001, 16)))
    sizes = np.bincount(labels)
    assert sorted(sizes.tolist()) == [250] * 15 + [251]


@pytest.mark.parametrize("costs", [np.zeros(3), np.zeros((2, 3)), np.zeros((3, 0))])
def test_refuses_what_cannot_be_shared_out(costs: np.ndarray) -> None:
    with pytest.raises(ClusterError, match="costs="):
        balanced(costs)


def test_refuses_what_is_not_finite() -> None:
    with pytest.raises(ClusterError, match="finite"):
        balanced(np.array([[0.0, np.nan], [1.0, 1.0]]))
