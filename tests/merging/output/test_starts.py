"""Candidates to begin with, and what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.evaluation.example import DatasetKind
from evomerge.merging.output.choice import ChoiceFusion
from evomerge.merging.output.errors import FusionMetricError, PopulationError
from evomerge.merging.output.extraction import ExtractionFusion, ItemVotes
from evomerge.merging.output.fusion import FusionKind, cost_share, fusion_kind
from evomerge.merging.output.mixture import MixtureFusion, TokenScores
from evomerge.merging.output.starts import starts


def test_each_expert_alone_then_uniform_then_votes() -> None:
    # Right in 9, 3 and 5 of 10 questions with two options.
    right = np.array([np.arange(10) < r for r in (9, 3, 5)])
    log_probs = np.log(np.where(right.T[:, :, None], [0.9, 0.1], [0.1, 0.9]))
    fusion = ChoiceFusion(log_probs, np.full(10, 2), np.zeros(10, int))
    found = starts(fusion, "cross_entropy", options=2)
    assert len(found) == 5
    for i in range(3):
        np.testing.assert_array_equal(found[i].beta, np.eye(3)[i : i + 1])
    np.testing.assert_allclose(found[3].beta, 1 / 3)
    odds = np.log(np.array([9.5 / 1.5, 3.5 / 7.5, 1.0]))
    np.testing.assert_allclose(found[4].beta[0], odds / np.abs(odds).sum(), atol=1e-12)
    assert all((one.alpha == 1).all() for one in found)


def test_votes_by_score_and_by_likelihood_where_no_score_is_chance() -> None:
    votes = ItemVotes(
        np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([[0, 1], [0, 1]]), np.ones(2, bool),
        np.array([True, False]), 1,
    )  # fmt: skip
    found = starts(ExtractionFusion([votes]), "item_f1")
    np.testing.assert_allclose(found[-1].beta, [[0.6, 0.4]])
    tokens = TokenScores(np.log([[0.5], [0.25]]), np.ones(2, bool), 4)
    found = starts(MixtureFusion([tokens]), "cross_entropy")
    np.testing.assert_allclose(found[-1].beta, [[2 / 3, 1 / 3]])


def test_no_votes_where_no_expert_is_better_than_nothing() -> None:
    votes = ItemVotes(np.array([[1.0]]), np.array([[0]]), np.ones(1, bool), np.array([False]), 1)
    assert len(starts(ExtractionFusion([votes]), "item_f1")) == 2


def test_the_share_of_the_cost_that_is_kept() -> None:
    kept = np.array([[True, False, True], [False, False, False], [True, True, True]])
    np.testing.assert_allclose(cost_share(kept, np.array([1.0, 2.0, 5.0])), [0.75, 0, 1])
    np.testing.assert_allclose(cost_share(kept, np.zeros(3)), [2 / 3, 0, 1])
    with pytest.raises(PopulationError, match="costs"):
        cost_share(kept, np.array([1.0, -2.0, 5.0]))


@pytest.mark.parametrize(
    ("rows", "metric", "kind"),
    [
        ("choice", "cross_entropy", "choice"),
        ("choice", "choice_accuracy", "choice"),
        ("completion", "item_f1", "extraction"),
        ("completion", "item_recall", "extraction"),
        ("completion", "rouge_l", "free_text"),
        ("completion", "exact_match", "free_text"),
        ("completion", "cross_entropy", "scored_text"),
        ("text", "cross_entropy", "scored_text"),
    ],
)
def test_which_fusion_answers_which_rows(rows: DatasetKind, metric: str, kind: FusionKind) -> None:
    assert fusion_kind(rows, metric) == kind


@pytest.mark.parametrize(
    ("rows", "metric"),
    [
        *[("choice", "token_f1"), ("text", "chrf"), ("completion", "choice_accuracy")],
        ("completion", "nonsense"),
    ],
)
def test_no_fusion_for_a_metric_that_does_not_suit_the_rows(rows: DatasetKind, metric: str) -> None:
    with pytest.raises(FusionMetricError, match=metric):
        fusion_kind(rows, metric)
