"""Choice answers of every method become one fusion."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.outputs import ALTERNATIVES, CHAT, ECHOING, echoed, expert, labelled, said

from evomerge.connectors.output.evidence import choice_fusion, option_log_probs
from evomerge.connectors.output.task import Task
from evomerge.connectors.question import Answer, Token
from evomerge.evaluation.example import Example

TASK = Task("choice", "cross_entropy", samples=2, smoothing=0.5)
YES_NO = Example("Is it?", "no", ("yes", "no"), row=1)
THREE = Example("Which?", "c", ("aa", "bb", "c"), row=2)

ECHO = expert("echo", ECHOING)
LETTER = expert("letter", ALTERNATIVES)
DRAWN = expert("drawn", CHAT)
FIRST = labelled(Token("A", None, (("A", np.log(0.7)), ("B", np.log(0.2)))))


def test_experts_of_three_methods_in_one_fusion() -> None:
    yes_no = echoed([("Is it?", None), (" yes", -2.0)], [("Is it?", None), (" no", -0.5)])
    given = [
        [[yes_no], [None]],
        [[FIRST], [FIRST]],
        [[said("B"), said("no.")], [said("B"), None]],
    ]
    fusion = choice_fusion([ECHO, LETTER, DRAWN], [YES_NO, THREE], given, TASK)
    assert (fusion.examples, fusion.experts) == (2, 3)
    alone = fusion.distributions(np.ones((3, 3)), np.eye(3))
    echo = np.array([-2.0 / 4, -0.5 / 3]) * 3.5
    np.testing.assert_allclose(alone[0, 0, :2], np.exp(echo) / np.exp(echo).sum())
    np.testing.assert_allclose(alone[0, 1], 1 / 3, err_msg="no answer")
    np.testing.assert_allclose(alone[1, 0, :2], [0.7 / 0.9, 0.2 / 0.9])
    np.testing.assert_allclose(alone[2, 0, :2], [0.5 / 3, 2.5 / 3])
    np.testing.assert_allclose(alone[2, 1], np.array([0.5, 1.5, 0.5]) / 2.5)
    losses = fusion.losses(np.ones((3, 3)), np.eye(3), "choice_accuracy")
    np.testing.assert_array_equal(losses, [[0, 1], [1, 1], [0, 1]])


def test_a_letter_without_log_probabilities_counts_by_its_words() -> None:
    scores = option_log_probs(LETTER, YES_NO, [said("B")], TASK)
    np.testing.assert_allclose(scores, np.log([0.5 / 2, 1.5 / 2]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given",
    [
        [],
        [None],
        [Answer((), 0, 0)],
        [said("I cannot say")],
        [said("yes", finish="content_filter")],
    ],
)
@pytest.mark.parametrize("who", [ECHO, LETTER, DRAWN], ids=lambda one: one.name)
def test_what_says_nothing_is_no_answer(given: list[Answer | None], who: object) -> None:
    assert option_log_probs(who, YES_NO, given, TASK) is None  # type: ignore[arg-type]


def test_a_pool_that_never_answers_guesses() -> None:
    given = [[[None], [None]]] * 2
    fusion = choice_fusion([LETTER, DRAWN], [YES_NO, THREE], given, TASK)
    losses = fusion.losses(np.ones((1, 2)), np.full((1, 2), 0.5), "cross_entropy")
    np.testing.assert_allclose(losses, [[np.log(2), np.log(3)]])
