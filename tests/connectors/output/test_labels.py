"""Labels: listed for a model, read from its answer."""

from __future__ import annotations

import pytest

from evomerge.connectors.output.labels import label_of, labels, listing, option_of
from evomerge.evaluation.example import Example

GLUE = ("entailment", "not entailment")


def test_letters_numbers_and_options_that_are_labels_themselves() -> None:
    assert labels(GLUE) == ("A", "B")
    assert labels([f"option {i}" for i in range(26)])[-1] == "Z"
    many = labels([f"option {i}" for i in range(40)])
    assert (many[0], many[-1]) == ("1", "40")
    assert labels(("B", "A", " c")) == ("B", "A", "c")
    assert labels(("a", "A")) == ("A", "B"), "labels that differ in case alone are none"
    assert labels(("+", "-")) == ("A", "B")


def test_the_listing_names_every_option_once() -> None:
    text = listing(GLUE)
    assert "\nA. entailment\nB. not entailment\n" in text
    assert "letter" in text
    assert text.endswith("Answer:")
    assert "\n40. option 39\n" in listing([f"option {i}" for i in range(40)])
    assert "number" in listing([f"option {i}" for i in range(40)])
    assert "one of 1, 2, 3" in listing(("1", "2", "3"))


@pytest.mark.parametrize(
    ("token", "index"),
    [
        *[("A", 0), (" a", 0), ("**A", 0), ("▁B", 1), ("ĠB", 1), ("(B", 1), ("B.", 1)],
        *[("C", None), ("", None), (" ", None), ("AB", None), ("Answer", None)],
    ],
)
def test_spellings_of_a_label(token: str, index: int | None) -> None:
    assert label_of(token, ("A", "B")) == index


@pytest.mark.parametrize(
    ("answer", "index"),
    [
        ("A", 0),
        (" (b)", 1),
        ("B. not entailment", 1),
        ("B\nbecause", 1),
        ("entailment", 0),
        ("Not entailment, I think", 1),
        ("The answer is B.", 1),
        ("**Answer: (A)**", 0),
        ("The correct option is b", 1),
        ("A man sleeps", None),
        ("C", None),
        ("I do not know", None),
        ("", None),
    ],
)
def test_which_option_an_answer_names(answer: str, index: int | None) -> None:
    assert option_of(answer, Example("q", GLUE[0], GLUE)) == index


def test_an_option_that_begins_like_a_label() -> None:
    example = Example("q", "B team", ("B team", "A team"))
    assert option_of("A team", example) == 1
    assert option_of("B", example) == 1, "the label, for no option is B alone"


def test_numbers_of_many_options() -> None:
    example = Example("q", "option 0", tuple(f"option {i}" for i in range(40)))
    assert option_of("12", example) == 11
    assert option_of("12. option 11", example) == 11
    assert option_of("41", example) is None
