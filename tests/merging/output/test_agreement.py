"""Minimum Bayes risk over the experts' own answers."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.merging.output.agreement import AgreementFusion, Utilities
from evomerge.merging.output.errors import EvidenceError, FusionMetricError

SAID = np.eye(3, dtype=bool)
LIKENESS = np.array([[1.0, 0.6, 0.1], [0.6, 1.0, 0.3], [0.1, 0.3, 1.0]])
LOSSES = np.array([0.2, 0.3, 0.4, 0.9])
TRUTH = {"token_f1": LOSSES, "exact_match": 1 - LOSSES}


def chosen(beta: list[float], alpha: list[float] | None = None, **evidence: object) -> int:
    one = Utilities(**{"utility": LIKENESS, "said": SAID, "losses": TRUTH, **evidence})  # type: ignore[arg-type]
    fusion = AgreementFusion([one])
    a, b = np.array([alpha or [1.0] * 3]), np.array([beta])
    answer = int(fusion.chosen(a, b)[0, 0])
    for metric, losses in TRUTH.items():
        assert fusion.losses(a, b, metric)[0, 0] == losses[answer]
    return answer


def test_an_expert_alone_says_what_it_said() -> None:
    assert [chosen(row) for row in np.eye(3).tolist()] == [0, 1, 2]


def test_the_answer_that_is_most_like_all_is_chosen() -> None:
    assert chosen([1 / 3] * 3) == 1
    assert chosen([0.8, 0.1, 0.1]) == 0


def test_a_negative_expert_pushes_away_and_its_own_answer_is_not_chosen() -> None:
    assert chosen([1.0, -1.0, 0.9]) == 2
    assert chosen([0.0, -1.0, 0.1]) == 2


@pytest.mark.parametrize(("alpha", "support"), [(0.4, 0.0), (0.41, 0.6), (1.0, 0.6)])
def test_utilities_are_kept_above_one_minus_alpha(alpha: float, support: float) -> None:
    """The second answer beats the third by the support of the first expert, or not."""
    said = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], bool)
    for edge, answer in ((support - 0.05, 1), (support + 0.05, 2)):
        utility = np.array([[0.0, 0.6, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
        beta = [1.0, 1.0, 0.5 + edge]
        assert chosen(beta, [alpha, 1.0, 1.0], utility=utility, said=said) == answer


def test_ties_go_to_the_first() -> None:
    same = np.ones((3, 3))
    assert chosen([0.1, 0.2, 0.3], utility=same) == 0
    assert chosen([0.0, 0.2, 0.3], utility=same) == 1, "the first was not said by a positive expert"


def test_nobody_says_anything() -> None:
    assert chosen([-1.0, -1.0, 0.0]) == -1
    silent = np.zeros((3, 3), bool)
    assert chosen([1.0, 1.0, 1.0], said=silent) == -1
    empty = Utilities(np.zeros((3, 0)), np.zeros((3, 0), bool), {"token_f1": np.array([0.7])})
    fusion = AgreementFusion([empty])
    assert fusion.losses(np.ones((1, 3)), np.ones((1, 3)), "token_f1") == 0.7


def test_refuses_what_does_not_fit() -> None:
    with pytest.raises(EvidenceError, match="evidence"):
        AgreementFusion([])
    with pytest.raises(EvidenceError, match="said"):
        Utilities(LIKENESS, SAID[:2])
    with pytest.raises(EvidenceError, match="utility"):
        Utilities(LIKENESS * 2, SAID)
    with pytest.raises(EvidenceError, match="losses"):
        Utilities(LIKENESS, SAID, {"chrf": LOSSES[1:]})
    with pytest.raises(EvidenceError, match="losses"):
        AgreementFusion([Utilities(LIKENESS, SAID)]).losses(
            np.ones((1, 3)), np.ones((1, 3)), "token_f1"
        )
    with pytest.raises(FusionMetricError, match="measured by token_f1, exact_match"):
        AgreementFusion([Utilities(LIKENESS, SAID, TRUTH)]).losses(
            np.ones((1, 3)), np.ones((1, 3)), "chrf"
        )
