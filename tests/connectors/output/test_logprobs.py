"""Log-probabilities of options out of answers of every shape."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.support.outputs import echoed, labelled

from evomerge.connectors.output.logprobs import (
    LEAST,
    clamped,
    label_scores,
    option_scores,
    scored_tokens,
    vote_scores,
)
from evomerge.connectors.question import Completion, Token

AB = ("A", "B")


def first(logprob: float | None, *alternatives: tuple[str, float], text: str = "A") -> Completion:
    return labelled(Token(text, logprob, alternatives)).completions[0]


@pytest.mark.parametrize(
    ("logprob", "counts"),
    [
        *[(None, LEAST), (math.nan, LEAST), (-9999.0, LEAST), (-math.inf, LEAST)],
        *[(-2.5, -2.5), (1e-7, 0.0)],
    ],
)
def test_no_token_counts_more_than_it_may(logprob: float | None, counts: float) -> None:
    assert clamped(logprob) == counts


def test_labels_by_the_first_token_and_its_alternatives() -> None:
    scores = label_scores(first(-0.1, ("A", -0.1), ("B", -3.0), ("The", -5.0)), AB)
    np.testing.assert_allclose(scores, [-0.1, -3.0])  # type: ignore[arg-type]


def test_spellings_of_a_label_count_together() -> None:
    said = first(None, (" A", math.log(0.4)), ("a", math.log(0.2)), ("▁B", math.log(0.3)))
    np.testing.assert_allclose(label_scores(said, AB), np.log([0.6, 0.3]))  # type: ignore[arg-type]


def test_the_token_itself_counts_where_no_alternative_repeats_it() -> None:
    said = first(math.log(0.5), ("B", math.log(0.3)))
    np.testing.assert_allclose(label_scores(said, AB), np.log([0.5, 0.3]))  # type: ignore[arg-type]


def test_a_missing_label_is_no_likelier_than_the_least_given_nor_than_what_is_left() -> None:
    names = ("A", "B", "C", "D")
    crowded = first(None, ("A", math.log(0.9)), ("x", math.log(0.06)))
    expected = math.log(0.04 / 3)
    np.testing.assert_allclose(label_scores(crowded, names)[1:], expected)  # type: ignore[index]
    spread = first(None, ("A", math.log(0.1)), ("x", math.log(0.05)))
    expected = math.log(0.05)
    np.testing.assert_allclose(label_scores(spread, names)[1:], expected)  # type: ignore[index]
    certain = first(None, ("A", 0.0))
    np.testing.assert_allclose(label_scores(certain, names), [0, LEAST, LEAST, LEAST])  # type: ignore[arg-type]


def test_without_log_probabilities_or_without_a_label_there_are_no_scores() -> None:
    assert label_scores(Completion("A", "stop"), AB) is None
    assert label_scores(first(-0.1, ("I", -0.1), ("The", -3.0), text="I"), AB) is None


def test_scored_tokens_stand_at_the_end_with_what_they_begin_before_it() -> None:
    tokens = [Token("<s>", None), Token("Is it", -1.0), Token(": ye", -2.0), Token("s", -0.5)]
    assert scored_tokens(tokens, " yes") == tuple(tokens[2:])
    assert scored_tokens(tokens, "s") == (tokens[3],)
    assert scored_tokens(tokens, " no") is None


def test_options_of_one_length_have_their_plain_log_likelihood() -> None:
    answer = echoed(
        [("Q", None), ("?", -4.0), (" y", -1.0), ("es", -0.5)],
        [("Q", None), ("?", -4.0), (" n", -2.0), ("op", -0.25)],
    )
    scores = option_scores(answer.completions, (" yes", " nop"))
    np.testing.assert_allclose(scores, [-1.5, -2.25])  # type: ignore[arg-type]


def test_options_are_compared_by_the_byte() -> None:
    answer = echoed([("Q", None), (" no", -3.0)], [("Q", None), (" no", -3.0), (" no", -0.6)])
    scores = option_scores(answer.completions, (" no", " no no"))
    np.testing.assert_allclose(scores, np.array([-3.0 / 3, -3.6 / 6]) * 4.5)  # type: ignore[arg-type]


def test_tokens_that_do_not_spell_the_text_are_told_apart_by_the_other_options() -> None:
    answer = echoed(
        [("Q", None), ("�", -4.0), ("�", -1.0), ("x", -0.5)],
        [("Q", None), ("�", -4.0), ("y", -2.0)],
    )
    scores = option_scores(answer.completions, (" äx", " y"))
    np.testing.assert_allclose(scores, np.array([-1.5 / 4, -2.0 / 2]) * 3)  # type: ignore[arg-type]


def test_unlikely_and_unknown_tokens_do_not_drown_the_rest() -> None:
    answer = echoed([("Q", None), (" a", -9999.0)], [("Q", None), (" b", None)])
    np.testing.assert_allclose(
        option_scores(answer.completions, (" a", " b")),  # type: ignore[arg-type]
        [LEAST, LEAST],
    )


def test_an_echo_that_is_missing_is_no_answer() -> None:
    answer = echoed([("Q", None), (" a", -1.0)], [])
    assert option_scores(answer.completions, (" a", " b")) is None
    assert option_scores(answer.completions[:1], (" a", " b")) is None


def test_samples_are_counted_with_smoothing() -> None:
    scores = vote_scores([0, 0, None, 2], 3, smoothing=0.5)
    np.testing.assert_allclose(scores, np.log([2.5 / 4.5, 0.5 / 4.5, 1.5 / 4.5]))  # type: ignore[arg-type]
    assert vote_scores([None], 3, smoothing=0.5) is None
    assert vote_scores([], 3, smoothing=0.5) is None
