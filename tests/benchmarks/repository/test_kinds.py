"""The tables of the kinds are true, the same at every call, and there for all that is asked."""

from __future__ import annotations

import random

import pytest
from benchmarks.repository.kinds import answers, label, languages


@pytest.mark.parametrize(
    ("kind", "domain", "question", "answer"),
    [
        ("number", "es", "42", "cuarenta y dos"),
        ("ago", "fr", "-3 day", "il y a 3 jours"),
        ("country", "it", "Germany", "Germania"),
        ("language", "pt", "Greek", "grego"),
        ("currency", "pt", "Swedish Krona", "Coroa sueca"),
        ("emoji", "de", "grinning face", "grinsendes gesicht"),
        ("character", "greek", "03B1", "GREEK SMALL LETTER ALPHA"),
    ],
)
def test_a_table_holds_what_everybody_knows(
    kind: str, domain: str, question: str, answer: str
) -> None:
    assert answers(kind, domain)[question] == answer


@pytest.mark.parametrize(
    ("kind", "separator"), [("date", "-"), ("unit", " "), ("money", " "), ("span", " ")]
)
def test_questions_without_end_are_the_same_in_all_languages(kind: str, separator: str) -> None:
    spanish = answers(kind, "es")
    assert list(spanish) == list(answers(kind, "pl"))
    assert all(separator in question for question in spanish)


def test_a_broken_number_is_written_as_the_language_writes_it() -> None:
    german = answers("unit", "de")
    broken = {question: answer for question, answer in german.items() if ".5 " in question}
    assert broken
    assert all(",5" in answer for answer in broken.values())


def test_stress_is_that_of_the_sounds() -> None:
    sounds, stress = answers("sound", "english"), answers("stress", "english")
    assert sounds.keys() == stress.keys()
    for word, said in sounds.items():
        assert stress[word].split() == [c for c in said if c.isdigit()]


@pytest.mark.parametrize("kind", languages())
def test_tables_do_not_depend_on_the_global_generator(kind: str) -> None:
    random.seed(1)
    first = answers(kind, "nl")
    random.seed(2)
    assert answers(kind, "nl") == first
    assert list(first) == sorted(first)


@pytest.mark.parametrize(
    ("kind", "domain"),
    [
        ("planet", "es"),
        ("number", "xx"),
        ("country", "xx"),
        ("emoji", "nl"),
        ("character", "klingon"),
        ("sound", "es"),
    ],
)
def test_what_is_not_there_is_an_error(kind: str, domain: str) -> None:
    with pytest.raises(KeyError, match=kind):
        answers(kind, domain)


def test_domains_are_named_in_english() -> None:
    assert [label(domain) for domain in ("sv", "greek", "english")] == [
        "Swedish",
        "Greek",
        "English",
    ]
