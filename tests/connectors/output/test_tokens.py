"""Echoed texts as token scores, and experts that cut them differently."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.outputs import ALTERNATIVES, ECHOING, echoed, expert

from evomerge.connectors.output.errors import ExpertUnableError, TokenisationError
from evomerge.connectors.output.evidence import fusion_of
from evomerge.connectors.output.questions import questions
from evomerge.connectors.output.task import Task
from evomerge.connectors.output.tokens import text_scores, token_scores
from evomerge.connectors.question import Completion
from evomerge.evaluation.example import Example

NAMES = ("ann", "bob", "eve")
TASK = Task("scored_text", "cross_entropy")


def echo(*tokens: tuple[str, float | None]) -> Completion:
    return echoed(tokens).completions[0]


def test_the_tokens_behind_the_prompt_are_scored() -> None:
    found = token_scores(
        NAMES,
        [
            echo(("Q", None), ("?", -5.0), (" An", -1.0), ("n", -9999.0)),
            None,
            echo(("<s>", None), ("Q?", -2.0), (" An", -0.5), ("n", None)),
        ],
        " Ann",
        row=3,
    )
    np.testing.assert_array_equal(found.log_probs, [[-1, -30], [0, 0], [-0.5, -30]])
    np.testing.assert_array_equal(found.answered, [True, False, True])
    assert found.bytes == 4


def test_the_very_first_token_of_raw_text_does_not_count() -> None:
    text = echo(("Once", None), (" upon", -2.0), (" a", -1.0))
    found = token_scores(["ann"], [text], "Once upon a", row=1)
    np.testing.assert_array_equal(found.log_probs, [[-2, -1]])


def test_a_first_token_without_its_text_is_the_beginning_of_the_text() -> None:
    """As vLLM gives the first position of a prompt, where there is no beginning-of-text."""
    text = echo(("", None), (" upon", -2.0), (" a", -1.0))
    found = token_scores(["ann"], [text], "Once upon a", row=1)
    np.testing.assert_array_equal(found.log_probs, [[-2, -1]])
    foreign = token_scores(["ann"], [echo(("", None), (" else", -2.0))], "Once upon a", row=1)
    assert not foreign.answered.any()


def test_of_a_whole_text_the_first_token_is_spelt_and_not_scored() -> None:
    echoes = [
        echo(("", None), (" upon", -2.0), (" a", -1.0)),
        None,
        echo(("Tell: ", None), (": Once", -3.0), (" upon", -0.5), (" a", -4.0)),
    ]
    tokens, found = text_scores(NAMES, echoes, "Once upon a", row=0)
    assert tokens == ("Once", " upon", " a")
    np.testing.assert_array_equal(found.log_probs[[0, 2], 1:], [[-2, -1], [-0.5, -4]])
    np.testing.assert_array_equal(found.answered, [True, False, True])

    tokens, found = text_scores(["ann"], [echo(("Once", None))], "Once", row=0)
    assert (tokens, found.log_probs.shape) == (("Once",), (1, 1))
    assert text_scores(NAMES, [None] * 3, "Once", row=0)[0] == ()
    other = echo(("Once", None), (" up", -1.0), ("on", -1.0), (" a", -1.0))
    with pytest.raises(TokenisationError, match="'bob'"):
        text_scores(NAMES, [echoes[0], other, None], "Once upon a", row=0)


def test_pieces_of_characters_and_other_blanks_are_still_found() -> None:
    text = echo(("Q:", None), ("▁caf", -1.0), ("�", -2.0), ("�", -0.5), ("!", -0.1))
    found = token_scores(["ann"], [text], " café!", row=1)
    np.testing.assert_array_equal(found.log_probs, [[-1, -2, -0.5, -0.1]])


@pytest.mark.parametrize(
    "other", [echo(("Q?", None), (" Ann", -1.0)), echo(("Q?", None), (" A", -1.0), ("nn", -1.0))]
)
def test_another_tokenizer_is_refused_by_name(other: Completion) -> None:
    first = echo(("Q?", None), (" An", -1.0), ("n", -1.0))
    with pytest.raises(TokenisationError, match=r"'eve'.*row 7.*'bob'") as caught:
        token_scores(NAMES, [None, first, other], " Ann", row=7)
    assert caught.value.expert == "eve"


def test_without_any_answer_a_token_is_four_bytes() -> None:
    nothing = [None, Completion("", "stop"), echo(("other", -1.0))]
    found = token_scores(NAMES, nothing, " Ann Lee", row=1)
    assert found.log_probs.shape == (3, 2)
    assert not found.answered.any()


def test_the_fusion_of_scored_text_mixes_what_was_echoed() -> None:
    experts = [expert("ann", ECHOING), expert("bob", ECHOING)]
    rows = [Example("Q?", "Ann", row=1), Example("", "Once upon", row=2)]
    given = [
        [[echoed([("Q?", None), (" Ann", np.log(p))])], [echoed([("Once", None), (" upon", -p)])]]
        for p in (0.8, 0.4)
    ]
    fusion = fusion_of(experts, rows, given, TASK)
    both, half = np.ones((1, 2)), np.full((1, 2), 0.5)
    np.testing.assert_allclose(
        fusion.losses(both, half, "cross_entropy"),
        [[-np.log(0.6), -np.log((np.exp(-0.8) + np.exp(-0.4)) / 2)]],
    )
    assert questions(experts[0], rows[0], TASK)[0].prompts == ("Q? Ann",)


def test_an_expert_without_prompt_log_probabilities_is_refused_by_name() -> None:
    with pytest.raises(ExpertUnableError, match="'eve'"):
        questions(expert("eve", ALTERNATIVES), Example("Q?", "Ann"), TASK)
