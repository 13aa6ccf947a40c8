"""Items: read from three formats, written back in that of the data set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.evaluation.metrics.items import items
from evomerge.merging.output.items import AnswerFormat, answer_format, read_items, write_items

TEXTS = st.text(st.sampled_from("abA :,;\nñ"), max_size=30)


@given(answer=TEXTS)
def test_text_without_bullets_holds_the_items_of_the_metric(answer: str) -> None:
    assert set(read_items(answer)) == items(answer)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("person: Ann; place: Rome", ["person: Ann", "place: Rome"]),
        ("Person:  ann ;person: Ann", ["Person: ann"]),
        ("person: Ann\nplace: Rome", ["person: Ann", "place: Rome"]),
        ("- person: Ann\n* place: Rome\n2. time: now", ["person: Ann", "place: Rome", "time: now"]),
        ("1. May", ["1. May"]),
        ("-5\n-6", ["-5", "-6"]),
        ('["person: Ann", "place: Rome"]', ["person: Ann", "place: Rome"]),
        ('```json\n["person: Ann"]\n```', ["person: Ann"]),
        ('{"who": ["Ann", "Bo"], "place": "Rome"}', ["who: Ann", "who: Bo", "place: Rome"]),
        ('[{"type": "person", "item": "Ann"}]', ["person: Ann"]),
        ('[{"person": "Ann"}, {"year": 1999}]', ["person: Ann", "year: 1999"]),
        ('["a; b", null]', ["a b"]),
        ('["person: Ann", "place: Ro', ["person: Ann"]),
        ("[not json", ["[not json"]),
        ("None", []),
        ("[]", []),
        ("{}", []),
        ("", []),
    ],
)  # fmt: skip
def test_items_of_an_answer(answer: str, found: list[str]) -> None:
    assert list(read_items(answer).values()) == found


@pytest.mark.parametrize("style", ["semicolons", "lines", "json_list", "json_object"])
@pytest.mark.parametrize(
    "said", [[], ["person: Ann"], ["person: Ann", "person: Bob", "place: Rome"]]
)
def test_what_is_written_is_read_back(style: AnswerFormat, said: list[str]) -> None:
    assert list(read_items(write_items(said, style)).values()) == said


def test_nothing_is_written_as_data_sets_write_it() -> None:
    assert write_items([], "semicolons") == "None"
    assert write_items([], "json_list") == "[]"
    assert write_items(["p: Ann", "p: Bob", "rest"], "json_object") == (
        '{"p": ["Ann", "Bob"], "": ["rest"]}'
    )


@pytest.mark.parametrize(
    ("completions", "style"),
    [
        (["a: b; c: d", "None", "a: b"], "semicolons"),
        (["a: b\nc: d", "None"], "lines"),
        (['["a: b"]', "[]"], "json_list"),
        (['{"a": ["b"]}'], "json_object"),
        (["a: b"], "semicolons"),
        ([], "semicolons"),
    ],
)
def test_the_format_of_a_data_set(completions: list[str], style: AnswerFormat) -> None:
    assert answer_format(completions) == style
