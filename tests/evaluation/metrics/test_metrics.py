"""Metrics: hand-computed cases, bounds, and the registry."""

from __future__ import annotations

import sys
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu import sentence_chrf

from evomerge.app.schemas.spec import Metric
from evomerge.evaluation.errors import InvalidArgumentError, MetricError, MissingLibraryError
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import (
    CROSS_ENTROPY,
    SCORES,
    check_metric,
    metric_losses,
    overlap,
    score_of,
)
from evomerge.evaluation.metrics.items import items

TEXTS = st.text(st.sampled_from("abAB ,;:.!\nñ-(9"), max_size=20)
TRUE = TEXTS.filter(str.strip)


def scored(metric: str, prediction: str, completion: str, *choices: str) -> float:
    return score_of(metric)(prediction, Example("question", completion, choices, row=4))


@pytest.mark.parametrize(
    ("prediction", "completion", "score"),
    [
        ("Paris", "Paris", 1),
        (" Paris\n", "Paris", 1),
        ("two  words", "two words", 1),
        ("paris", "Paris", 0),
        ("-5", "5", 0),
        ("A", "the", 0),
        ("", "Paris", 0),
    ],
)
def test_exact_match(prediction: str, completion: str, score: float) -> None:
    assert scored("exact_match", prediction, completion) == score


@pytest.mark.parametrize(
    ("prediction", "completion", "score"),
    [
        ("the cat sat", "A cat sat!", 1),
        ("cat sat", "cat sat on mat", 2 * 2 / (2 + 4)),
        ("cat cat cat", "cat", 2 * 1 / (3 + 1)),
        ("dog", "cat", 0),
        ("", "cat", 0),
        ("the", "cat", 0),
        ("the", "a", 1),
    ],
)
def test_token_f1(prediction: str, completion: str, score: float) -> None:
    assert scored("token_f1", prediction, completion) == pytest.approx(score)


@pytest.mark.parametrize(
    ("prediction", "completion", "precision", "recall"),
    [
        ("person: Ann; place: Rome", "place: Rome; person: Ann", 1, 1),
        ("person:ann ;  PLACE : rome;", "place: Rome; person: Ann", 1, 1),
        ("person: Ann", "person: Ann; place: Rome", 1, 1 / 2),
        ("person: Ann; person: Bob; person: Eve", "person: Ann; place: Rome", 1 / 3, 1 / 2),
        ("person: Ann; person: Ann", "person: Ann", 1, 1),
        ("place: Ann", "person: Ann", 0, 0),
        ("Ann; person: Ann", "person: Ann", 1 / 2, 1),
        ("person: Ann\nText: more", "person: Ann", 1 / 2, 1),
        ("live in: Ann , Rome", "live in: Ann, Rome", 1, 1),
        ("live in: Rome, Ann", "live in: Ann, Rome", 0, 0),
        ("", "person: Ann", 0, 0),
        ("person: Ann", "None", 0, 0),
        ("none", "None", 1, 1),
        ("", "None", 1, 1),
        ("ransom: the attack", "ransom: the attack,", 1, 1),
    ],
)
def test_items(prediction: str, completion: str, precision: float, recall: float) -> None:
    assert scored("item_precision", prediction, completion) == pytest.approx(precision)
    assert scored("item_recall", prediction, completion) == pytest.approx(recall)
    total = precision + recall
    f1 = 2 * precision * recall / total if total else 0
    assert scored("item_f1", prediction, completion) == pytest.approx(f1)


def test_items_in_their_normal_form() -> None:
    assert items(" Located in :New  York,USA ;; None") == {"located in: new york, usa"}


GLUE = ("entailment", "not_entailment")


@pytest.mark.parametrize(
    ("prediction", "completion", "choices", "score"),
    [
        ("entailment", "entailment", GLUE, 1),
        (" Entailment.", "entailment", GLUE, 1),
        ("entailment, because it says so", "entailment", GLUE, 1),
        ("not_entailment", "entailment", GLUE, 0),
        ("not_entailment", "not_entailment", GLUE, 1),
        ("It is entailment", "entailment", GLUE, 0),
        ("", "entailment", GLUE, 0),
        ("(A) blue", "A", ("A", "B"), 1),
        ("New York City", "New York", ("New York", "New York City"), 0),
        ("New York City", "New York City", ("New York", "New York City"), 1),
        ("us", "us", ("US", "us"), 1),
        ("us", "US", ("US", "us"), 0),
        ("+", "+", ("+", "-"), 1),
        ("-", "+", ("+", "-"), 0),
    ],
)
def test_choice_accuracy(
    prediction: str, completion: str, choices: tuple[str, ...], score: float
) -> None:
    assert scored("choice_accuracy", prediction, completion, *choices) == score


def test_rouge_l_by_hand_and_as_the_library_has_it() -> None:
    # LCS "the cat mat" of 3; precision 3/4, recall 3/6.
    said, true = "the cat mat now", "the cat sat on the mat"
    assert scored("rouge_l", said, true) == pytest.approx(2 * 0.75 * 0.5 / 1.25)
    library = RougeScorer(["rougeL"]).score(true, said)["rougeL"].fmeasure
    assert scored("rouge_l", said, true) == pytest.approx(library)


def test_rouge_l_knows_other_scripts() -> None:
    assert scored("rouge_l", "двадцать один", "двадцать один") == 1
    assert scored("rouge_l", "двадцать два", "двадцать один") == 0.5
    assert scored("rouge_l", "", "двадцать") == 0


def test_chrf_is_sacrebleus() -> None:
    said, true = "the kat sat", "the cat sat"
    assert scored("chrf", said, true) == pytest.approx(sentence_chrf(said, [true]).score / 100)
    assert scored("chrf", true, true) == 1
    assert scored("chrf", "", true) == 0


@pytest.mark.parametrize("metric", sorted(set(SCORES) - {"choice_accuracy"}))
@given(prediction=TEXTS, completion=TRUE)
def test_scores_lie_between_0_and_1(metric: str, prediction: str, completion: str) -> None:
    assert 0 <= scored(metric, prediction, completion) <= 1


@pytest.mark.parametrize("metric", ["exact_match", "token_f1", "item_f1"])
@given(completion=TRUE)
def test_the_true_answer_scores_1(metric: str, completion: str) -> None:
    assert scored(metric, completion, completion) == 1


@given(st.lists(TRUE, min_size=2, max_size=4, unique=True), st.data())
def test_naming_a_choice_in_full_is_right_for_that_choice_alone(
    choices: list[str], data: st.DataObject
) -> None:
    named = data.draw(st.sampled_from(choices))
    right = [scored("choice_accuracy", named, choice, *choices) for choice in choices]
    assert sum(right) == 1
    if len({" ".join(choice.split()) for choice in choices}) == len(choices):
        assert right[choices.index(named)] == 1


def test_losses_are_one_less_the_scores() -> None:
    examples = [Example("a", "x"), Example("b", "y")]
    found = metric_losses("exact_match", ["x", "z"], examples)
    np.testing.assert_array_equal(found, [0.0, 1.0])
    assert found.dtype == np.float64


def test_as_many_predictions_as_examples() -> None:
    with pytest.raises(InvalidArgumentError, match="predictions=1"):
        metric_losses("exact_match", ["x"], [Example("a", "x"), Example("b", "y")])


def test_every_metric_of_the_job_spec_is_known() -> None:
    assert set(get_args(Metric)) <= {CROSS_ENTROPY, *SCORES}


def test_an_unknown_metric_is_named_with_those_known() -> None:
    with pytest.raises(MetricError, match=r"metric='bleu': is unknown.*item_f1"):
        score_of("bleu")
    with pytest.raises(MetricError, match="computed by the model"):
        score_of("cross_entropy")


@pytest.mark.parametrize(
    ("metric", "example", "message"),
    [
        ("choice_accuracy", Example("a", "b", row=3), "row 3 has no choices"),
        ("exact_match", Example("", "raw", row=5), "row 5 is raw text"),
        ("bleu", Example("a", "b"), "is unknown"),
    ],
)
def test_a_metric_that_does_not_suit_is_refused_beforehand(
    metric: str, example: Example, message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        check_metric(metric, [example])


def test_cross_entropy_suits_every_row() -> None:
    check_metric("cross_entropy", [Example("", "raw"), Example("a", "b", ("b", "c"))])
    check_metric("choice_accuracy", [Example("a", "b", ("b", "c"))])


def test_choice_accuracy_refuses_a_row_without_choices() -> None:
    with pytest.raises(MetricError, match="row 4 has no choices"):
        scored("choice_accuracy", "a", "b")


@pytest.mark.parametrize(
    ("metric", "module", "library"),
    [
        ("rouge_l", "rouge_score.rouge_scorer", "rouge-score"),
        ("chrf", "sacrebleu.metrics.chrf", "sacrebleu"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    metric: str, module: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for scorer in (overlap._rouge, overlap._chrf):
        scorer.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingLibraryError, match=rf"{library}.*evo-merging\[local\]"):
        scored(metric, "a", "b")
