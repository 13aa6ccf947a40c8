"""Signed votes on items and their threshold."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.merging.output.errors import EvidenceError, PopulationError
from evomerge.merging.output.extraction import GRID, ExtractionFusion, ItemVotes

ALL = np.ones((1, 3))


def votes(shares: list[list[float]], true: list[bool] | None = None, truths: int = 0) -> ItemVotes:
    array = np.array(shares)
    places = np.tile(np.arange(array.shape[1]), (len(array), 1))
    right = None if true is None else np.array(true, dtype=bool)
    return ItemVotes(array, places, np.ones(len(array), bool), right, truths)


THREE = votes([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]], [True, False, False, False], 1)


def test_the_threshold_is_the_one_that_does_best_on_the_search_side() -> None:
    fusion = ExtractionFusion([THREE])
    beta = np.array([[0.5, 0.3, 0.2]])
    theta = fusion.fit(ALL, beta, "item_f1")
    # The votes are 0.8, 0.5, 0.5, 0.2: only above 0.5 and up to 0.8 the first stands alone.
    assert theta == pytest.approx([0.55]), "the nearest to a half of the equally good"
    assert fusion.losses(ALL, beta, "item_f1") == pytest.approx(0)
    assert fusion.losses(ALL, beta, "item_f1", np.array([0.5])) == pytest.approx(1 - 2 / 4)
    assert fusion.losses(ALL, beta, "item_f1", np.array([0.85])) == pytest.approx(1)


def test_of_equally_good_thresholds_the_nearest_to_a_half_is_taken() -> None:
    one = np.array([[0.3, 0.3, 0.4]])
    for shares, theta in (([1, 1, 1], 0.5), ([0, 0, 1], 0.4), ([1, 1, 0], 0.5)):
        fusion = ExtractionFusion([votes([[share] for share in shares], [True], 1)])
        assert fusion.fit(ALL, one, "item_f1") == pytest.approx([theta])


def test_a_threshold_is_frozen_for_other_examples() -> None:
    other = votes([[1, 0], [0, 1], [0, 1]], [True, False], 1)
    beta = np.array([[0.5, 0.3, 0.2]])
    theta = ExtractionFusion([THREE]).fit(ALL, beta, "item_f1")
    held_out = ExtractionFusion([other])
    assert held_out.losses(ALL, beta, "item_f1", theta) == pytest.approx(1), "votes are 0.5, 0.5"
    assert held_out.losses(ALL, beta, "item_f1") == pytest.approx(1 - 2 / 3)


def test_the_weights_of_the_examples_decide_between_thresholds() -> None:
    strict = votes([[1, 1], [1, 0], [1, 0]], [True, False], 1)
    loose = votes([[1, 1], [1, 0], [1, 0]], [True, True], 2)
    fusion = ExtractionFusion([strict, loose])
    beta = np.full((1, 3), 1 / 3)
    for weights, said in (([9.0, 1.0], 1), ([1.0, 9.0], 2)):
        theta = fusion.fit(ALL, beta, "item_f1", np.array(weights))
        assert len(fusion.items(ALL[0], beta[0], float(theta[0]))[0]) == said


def test_an_expert_alone_says_what_it_said_in_order_of_its_votes() -> None:
    fusion = ExtractionFusion([votes([[0, 1, 1, 0], [1, 0, 0, 1]])])
    one = np.array([1.0, 0.0])
    for theta in (1 / GRID, 0.5, 1.0):
        assert fusion.items(np.ones(2), one, theta)[0].tolist() == [1, 2]
    half = fusion.items(np.array([0.5, 1.0]), one, 0.5)
    assert half[0].tolist() == [1]


def test_equal_weights_reach_a_full_vote_whatever_their_rounding() -> None:
    for experts in range(1, 40):
        fusion = ExtractionFusion([votes([[1.0]] * experts, [True], 1)])
        beta = np.full(experts, 0.1)
        assert fusion.items(np.ones(experts), beta, 1.0)[0].tolist() == [0]
        alone = (np.ones((1, experts)), beta[None], "item_f1", np.ones(1))
        assert fusion.losses(*alone) == 0


def test_a_negative_expert_only_takes_away() -> None:
    fusion = ExtractionFusion([votes([[1, 1, 0], [0, 1, 0], [0, 0, 1]])])
    beta = np.array([1.0, -0.6, -1.0])
    assert fusion.items(np.ones(3), beta, 1 / GRID)[0].tolist() == [0, 1]
    assert fusion.items(np.ones(3), beta, 0.5)[0].tolist() == [0]
    assert fusion.items(np.ones(3), -np.abs(beta), 1 / GRID)[0].tolist() == []


def test_an_example_without_any_item_is_right_where_nothing_is_true() -> None:
    nothing = votes([[], [], []], [], 0)
    missed = votes([[], [], []], [], 2)
    fusion = ExtractionFusion([nothing, missed, THREE])
    for metric in ("item_precision", "item_recall", "item_f1"):
        losses = fusion.losses(ALL, np.zeros((1, 3)), metric)
        np.testing.assert_array_equal(losses, [[0, 1, 1]])


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(EvidenceError, match="evidence"):
        ExtractionFusion([])
    with pytest.raises(EvidenceError, match="evidence"):
        ExtractionFusion([THREE, votes([[1]], [True], 1)])
    with pytest.raises(EvidenceError, match="shares"):
        votes([[1.5]])
    with pytest.raises(EvidenceError, match="true"):
        votes([[1]], [True], 0)
    with pytest.raises(EvidenceError, match="answered"):
        ItemVotes(np.ones((2, 1)), np.zeros((2, 1), int), np.ones(3, bool))
    fusion = ExtractionFusion([THREE])
    for theta in ([0.0], [1.1], [0.5, 0.5], [np.nan]):
        with pytest.raises(PopulationError, match="thresholds"):
            fusion.losses(ALL, ALL, "item_f1", np.array(theta))
    with pytest.raises(EvidenceError, match="true"):
        ExtractionFusion([votes([[1]])]).losses(np.ones((1, 1)), np.ones((1, 1)), "item_f1")
