"""Answers in words: who named which item, who agrees with which text."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.outputs import said

from evomerge.connectors.output.words import item_votes, text_utilities
from evomerge.connectors.question import Completion
from evomerge.evaluation.errors import MetricError
from evomerge.evaluation.example import Example

TRUE = Example("Who?", "person: Ann; place: Oslo")


def words(*texts: str) -> tuple[Completion, ...]:
    return said(*texts).completions


def test_votes_are_shares_of_samples_over_all_items_that_were_named() -> None:
    named = item_votes([words("place: Rome; person: Ann", "PERSON: ANN"), (), words("None")], TRUE)
    assert named.spellings == ("place: Rome", "person: Ann")
    votes = named.votes
    np.testing.assert_array_equal(votes.shares, [[0.5, 1.0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(votes.answered, [True, False, True])
    np.testing.assert_array_equal(votes.true, [False, True])  # type: ignore[arg-type]
    assert votes.truths == 2
    assert item_votes([words("a: b")]).votes.true is None


def test_items_stand_in_the_order_in_which_their_expert_said_them() -> None:
    named = item_votes([words("a; b", "c; a"), words("c; b")])
    assert named.spellings == ("a", "b", "c")
    np.testing.assert_array_equal(named.votes.places, [[0, 1, 2], [0, 1, 0]])


@pytest.mark.parametrize(
    ("text", "spellings"),
    [
        ("a: one; b: tw", ("a: one",)),
        ("a: one; b: two;", ("a: one", "b: two")),
        ("a: one\nb: two\n", ("a: one", "b: two")),
        ('["a: one", "b: tw', ("a: one",)),
        ('["a: one", "b: two"]', ("a: one", "b: two")),
        ("a: on", ("a: on",)),
    ],
)
def test_the_item_that_was_cut_off_does_not_count(text: str, spellings: tuple[str, ...]) -> None:
    cut = said(text, finish="length").completions
    assert item_votes([cut]).spellings == spellings


def test_a_whole_answer_counts_whole() -> None:
    assert item_votes([words("a: one; b: tw")]).spellings == ("a: one", "b: tw")


def test_agreement_takes_the_sample_as_the_truth() -> None:
    named = text_utilities(
        [words("red fox", "the red fox"), words("red bird "), ()], "token_f1", Example("q", "bird")
    )
    assert named.texts == ("red bird", "red fox", "the red fox")
    utilities = named.utilities
    np.testing.assert_array_equal(utilities.said, [[0, 1, 1], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(utilities.utility[:2], [[0.5, 1, 1], [1, 0.5, 0.5]])
    np.testing.assert_allclose(utilities.losses["token_f1"], [1 - 2 / 3, 1, 1, 1])
    assert text_utilities([words("a")], "token_f1").utilities.losses == {}


def test_nobody_said_anything() -> None:
    assert item_votes([(), ()]).votes.shares.shape == (2, 0)
    named = text_utilities([(), ()], "exact_match", Example("q", "bird"))
    assert named.texts == ()
    np.testing.assert_array_equal(named.utilities.losses["exact_match"], [1])


def test_cross_entropy_compares_no_texts() -> None:
    with pytest.raises(MetricError, match="cross_entropy"):
        text_utilities([words("a")], "cross_entropy")
