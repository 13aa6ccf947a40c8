"""The normal form: one way to write a dataset, and back."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.evaluation.errors import DatasetError
from evomerge.evaluation.example import Example
from evomerge.evaluation.normal_form import content_hash, from_jsonl, to_jsonl
from evomerge.evaluation.reading.shapes import rendered

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
ANY = st.text(st.characters(exclude_categories=["Cs"]))


def numbered(examples: list[Example]) -> list[Example]:
    return [
        Example(e.prompt, e.completion, e.choices, e.messages, row)
        for row, e in enumerate(examples, start=1)
    ]


@st.composite
def choice_rows(draw: st.DrawFn) -> Example:
    choices = draw(st.lists(WORDS, min_size=2, max_size=4, unique=True))
    return Example(draw(WORDS), draw(st.sampled_from(choices)), tuple(choices))


@st.composite
def chat_rows(draw: st.DrawFn) -> Example:
    roles = st.sampled_from(["system", "user", "assistant"])
    messages = tuple(draw(st.lists(st.tuples(roles, ANY), min_size=1, max_size=4)))
    return Example(rendered(messages), draw(WORDS), messages=messages)


DATASETS = st.one_of(
    st.lists(st.builds(Example, prompt=WORDS, completion=WORDS), min_size=1, max_size=5),
    st.lists(st.builds(Example, prompt=st.just(""), completion=WORDS), min_size=1, max_size=5),
    st.lists(choice_rows(), min_size=1, max_size=5),
    st.lists(chat_rows(), min_size=1, max_size=5),
).map(numbered)


@given(DATASETS)
def test_what_is_written_is_read_back(examples: list[Example]) -> None:
    written = to_jsonl(examples)
    assert from_jsonl(written) == examples
    assert to_jsonl(from_jsonl(written)) == written
    assert content_hash(examples) == hashlib.sha256(written).hexdigest()


def test_the_normal_form_of_each_shape() -> None:
    """These bytes are what stored hashes stand for: they must not change."""
    examples = [
        Example("Größe?", "a\nb"),
        Example("Sky?", "blue", ("green", "blue")),
        Example("User: hi\nAssistant:", "ho", messages=(("user", "hi"),)),
        Example("", "raw"),
    ]
    assert to_jsonl(examples).decode().splitlines() == [
        '{"completion":"a\\nb","prompt":"Größe?"}',
        '{"answer":"blue","choices":["green","blue"],"prompt":"Sky?"}',
        '{"messages":[{"content":"hi","role":"user"},{"content":"ho","role":"assistant"}]}',
        '{"text":"raw"}',
    ]


def test_the_hash_knows_order_and_content_but_not_row_numbers() -> None:
    a, b = Example("a", "b", row=1), Example("c", "d", row=2)
    assert content_hash([a, b]) == content_hash([Example("a", "b", row=9), b])
    assert content_hash([a, b]) != content_hash([b, a])
    assert content_hash([a]) != content_hash([a, a])
    assert content_hash([Example("a", "b ")]) != content_hash([a])


@pytest.mark.parametrize("data", [b"", b'{"prompt": 1}'])
def test_what_is_no_dataset_is_not_read_back(data: bytes) -> None:
    with pytest.raises(DatasetError):
        from_jsonl(data)
