"""What each shape of row becomes, and what is said of a bad one."""

from __future__ import annotations

import json

import pytest

from evomerge.evaluation.errors import DatasetError, RowError
from evomerge.evaluation.example import Example
from evomerge.evaluation.reading.reader import read_examples

PAIR = {"prompt": "2 + 2 =", "completion": "4"}
CHOICE = {"prompt": "Sky?", "choices": ["blue", "green"], "answer": "blue"}


def jsonl(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(*rows: object) -> list[Example]:
    return read_examples(jsonl(*rows), format="jsonl")


def refused(*rows: object) -> tuple[RowError, ...]:
    with pytest.raises(DatasetError) as caught:
        read(*rows)
    return caught.value.errors


def test_prompt_and_completion() -> None:
    assert read(PAIR) == [Example("2 + 2 =", "4", row=1)]


def test_chat_keeps_its_messages_and_renders_them() -> None:
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Capital of France?"},
        {"role": "assistant", "content": "Paris"},
    ]
    [example] = read({"messages": said})
    assert example.messages == (("system", "Be brief."), ("user", "Capital of France?"))
    assert example.prompt == "System: Be brief.\nUser: Capital of France?\nAssistant:"
    assert example.completion == "Paris"
    assert example.kind == "completion"


@pytest.mark.parametrize(
    ("extra", "prompt"),
    [({}, "Translate."), ({"input": ""}, "Translate."), ({"input": "Haus"}, "Translate.\nHaus")],
)
def test_alpaca_joins_instruction_and_input(extra: dict[str, str], prompt: str) -> None:
    assert read({"instruction": "Translate.", "output": "house"} | extra) == [
        Example(prompt, "house", row=1)
    ]


@pytest.mark.parametrize("answer", ["green", 1])
def test_the_answer_of_a_choice_row_is_its_text_or_its_index(answer: object) -> None:
    [example] = read(CHOICE | {"answer": answer})
    assert example == Example("Sky?", "green", ("blue", "green"), row=1)
    assert (example.answer, example.kind) == (1, "choice")


def test_raw_text_has_no_prompt() -> None:
    [example] = read({"text": "Once upon a time"})
    assert example == Example("", "Once upon a time", row=1)
    assert example.kind == "text"


def test_other_fields_are_ignored_even_where_they_look_like_another_shape() -> None:
    """As in published Alpaca files, whose `text` repeats the row."""
    row = {"instruction": "Say hi", "input": None, "output": "hi", "text": "Say hi hi", "id": 3}
    assert read(row) == [Example("Say hi", "hi", row=1)]


def test_a_null_field_counts_as_missing() -> None:
    assert read(PAIR | {"choices": None, "answer": None}) == [Example("2 + 2 =", "4", row=1)]
    assert refused(PAIR, PAIR | {"completion": None}) == (
        RowError(2, "completion", "missing; fields seen: 'prompt'"),
    )


@pytest.mark.parametrize(
    ("row", "field", "message"),
    [
        ({"prompt": "a"}, "completion", "missing; fields seen: 'prompt'"),
        (PAIR | {"prompt": 3}, "prompt", "must be a string, got number 3"),
        (PAIR | {"completion": True}, "completion", "must be a string, got boolean True"),
        (PAIR | {"completion": ["4"]}, "completion", "must be a string, got list ['4']"),
        (PAIR | {"completion": {"a": 1}}, "completion", "must be a string, got object {'a': 1}"),
        (PAIR | {"completion": ""}, "completion", "is empty: ''"),
        (PAIR | {"completion": " \n"}, "completion", "is empty: ' \\n'"),
        (PAIR | {"prompt": ""}, "prompt", "is empty: ''"),
        (PAIR | {"prompt": "a\ud800b"}, "prompt", "not valid UTF-8 at character 2"),
        ({"text": "whole"}, None, "mixed kinds: this row is {text}, the rows before are {prompt"),
        ([1, 2], None, "must be an object, got list [1, 2]"),
        (None, None, "must be an object, got null"),
    ],
)
def test_a_bad_row_is_named_with_its_field_and_value(
    row: object, field: str | None, message: str
) -> None:
    [error] = refused(PAIR, row, PAIR)
    assert (error.row, error.field) == (2, field)
    assert message in error.message


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"answer": "red"}, "answer", "'red' is not among the choices ('blue', 'green')"),
        ({"answer": "1"}, "answer", "'1' is not among the choices"),
        ({"answer": 2}, "answer", "index 2 is outside 0..1"),
        ({"answer": -1}, "answer", "index -1 is outside 0..1"),
        ({"answer": True}, "answer", "must be a string, got boolean True"),
        ({"answer": 0.0}, "answer", "must be a string, got number 0.0"),
        ({"choices": ["a", "b", "a"], "answer": 0}, "choices", "'a' stands more than once"),
        ({"choices": ["blue"]}, "choices", "must hold at least two, got ('blue',)"),
        ({"choices": []}, "choices", "must hold at least two, got ()"),
        ({"choices": "blue, green"}, "choices", "must be a list, got string 'blue, green'"),
        ({"choices": ["blue", 7]}, "choices[1]", "must be a string, got number 7"),
        ({"choices": ["blue", " "]}, "choices[1]", "is empty: ' '"),
    ],
)
def test_a_bad_choice_row_is_named(change: dict[str, object], field: str, message: str) -> None:
    [error] = refused(CHOICE, CHOICE | change)
    assert (error.row, error.field) == (2, field)
    assert message in error.message


USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "ho"}


@pytest.mark.parametrize(
    ("messages", "field", "message"),
    [
        ("hi", "messages", "must be a list, got string 'hi'"),
        ([], "messages", "must hold a message and the assistant's answer, got 0"),
        ([ASSISTANT], "messages", "got 1"),
        ([ASSISTANT, USER], "messages[1].role", "must be 'assistant', got 'user'"),
        ([USER, "ho"], "messages[1]", "must be an object, got string 'ho'"),
        ([{"role": "user"}, ASSISTANT], "messages[0].content", "missing; fields seen: 'role'"),
        ([{"content": "hi"}, ASSISTANT], "messages[0].role", "missing"),
        ([USER | {"role": "robot"}, ASSISTANT], "messages[0].role", "'robot' is none of system"),
        ([USER | {"content": 3}, ASSISTANT], "messages[0].content", "must be a string"),
        ([USER, ASSISTANT | {"content": ""}], "messages[1].content", "is empty"),
    ],
)
def test_a_bad_chat_row_is_named(messages: object, field: str, message: str) -> None:
    [error] = refused({"messages": messages})
    assert (error.row, error.field) == (1, field)
    assert message in error.message


def test_an_unknown_shape_names_the_fields_seen_and_those_expected() -> None:
    [error] = refused({"question": "a", "response": "b"})
    assert error.row == 1
    assert "fields seen: 'question', 'response'" in error.message
    assert "{prompt, completion}" in error.message


def test_a_bad_first_row_does_not_decide_the_shape() -> None:
    [error] = refused({"question": "a"}, PAIR, PAIR)
    assert error.row == 1


def test_a_long_value_is_cut_in_the_message() -> None:
    [error] = refused(CHOICE | {"answer": "x" * 100_000})
    assert len(error.message) < 300
