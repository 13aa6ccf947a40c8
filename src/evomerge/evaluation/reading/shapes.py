"""The shapes a row may have, and how each becomes an example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from evomerge.evaluation.errors import RowError, short
from evomerge.evaluation.example import Example
from evomerge.evaluation.reading.records import Record, described

Fields: TypeAlias = Mapping[str, object]
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Shape:
    """A form of row: the fields it must have, and what it makes of them."""

    name: str
    required: tuple[str, ...]
    build: Callable[[Fields, int], Example]

    def __str__(self) -> str:
        return "{" + ", ".join(self.required) + "}"


class _FieldError(Exception):
    """One field of the row at hand is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def shape_of(fields: Iterable[str]) -> Shape | None:
    """The first shape all of whose fields are there."""
    names = set(fields)
    return next((shape for shape in SHAPES if names.issuperset(shape.required)), None)


def example_of(record: Record, shape: Shape | None) -> tuple[Shape | None, Example | RowError]:
    """The example that a record makes, and the shape that the whole dataset has from here on.

    Args:
        record: the row; a null field counts as missing.
        shape: the shape of the rows before; None while no row had any.
    """
    fields = {name: value for name, value in record.fields.items() if value is not None}
    own = shape_of(fields)
    shape = shape or own
    if shape is None:
        expected = ", ".join(str(known) for known in SHAPES)
        return None, RowError(
            record.row, None, f"unknown shape, fields seen: {_seen(fields)}; expected {expected}"
        )
    missing = [name for name in shape.required if name not in fields]
    if missing and own is not None:
        return shape, RowError(
            record.row, None, f"mixed kinds: this row is {own}, the rows before are {shape}"
        )
    if missing:
        return shape, RowError(record.row, missing[0], f"missing; fields seen: {_seen(fields)}")
    try:
        return shape, shape.build(fields, record.row)
    except _FieldError as error:
        return shape, RowError(record.row, error.field, error.message)


def _seen(fields: Fields) -> str:
    names = [short(name) for name in list(fields)[:20]]
    return ", ".join(names) or "(none)"


def _string(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise _FieldError(field, f"must be a string, got {described(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        around = value[max(0, error.start - 20) : error.start + 20]
        raise _FieldError(
            field, f"is not valid UTF-8 at character {error.start + 1}: {short(around)}"
        ) from None
    return value


def _filled(value: object, field: str) -> str:
    text = _string(value, field)
    if not text.strip():
        raise _FieldError(field, f"is empty: {short(text)}")
    return text


def _completion(fields: Fields, row: int) -> Example:
    return Example(
        prompt=_filled(fields["prompt"], "prompt"),
        completion=_filled(fields["completion"], "completion"),
        row=row,
    )


def _alpaca(fields: Fields, row: int) -> Example:
    instruction = _filled(fields["instruction"], "instruction")
    context = _string(fields.get("input", ""), "input")
    return Example(
        prompt=f"{instruction}\n{context}" if context.strip() else instruction,
        completion=_filled(fields["output"], "output"),
        row=row,
    )


def _text(fields: Fields, row: int) -> Example:
    return Example(prompt="", completion=_filled(fields["text"], "text"), row=row)


def _choice(fields: Fields, row: int) -> Example:
    prompt = _filled(fields["prompt"], "prompt")
    choices = _choices(fields["choices"])
    answer = fields["answer"]
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(choices):
            raise _FieldError("answer", f"index {answer} is outside 0..{len(choices) - 1}")
        return Example(prompt, choices[answer], choices, row=row)
    text = _string(answer, "answer")
    if text not in choices:
        raise _FieldError("answer", f"{short(text)} is not among the choices {short(choices)}")
    return Example(prompt, text, choices, row=row)


def _choices(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _FieldError("choices", f"must be a list, got {described(value)}")
    choices = tuple(
        _filled(choice, f"choices[{position}]") for position, choice in enumerate(value)
    )
    if len(choices) < 2:
        raise _FieldError("choices", f"must hold at least two, got {short(choices)}")
    seen: set[str] = set()
    for choice in choices:
        if choice in seen:
            raise _FieldError("choices", f"{short(choice)} stands more than once")
        seen.add(choice)
    return choices


def _chat(fields: Fields, row: int) -> Example:
    value = fields["messages"]
    if not isinstance(value, list):
        raise _FieldError("messages", f"must be a list, got {described(value)}")
    messages = tuple(_message(message, position) for position, message in enumerate(value))
    if len(messages) < 2:
        raise _FieldError(
            "messages", f"must hold a message and the assistant's answer, got {len(messages)}"
        )
    last = f"messages[{len(messages) - 1}]"
    role, answer = messages[-1]
    if role != "assistant":
        raise _FieldError(f"{last}.role", f"must be 'assistant', got {short(role)}")
    return Example(
        prompt=rendered(messages[:-1]),
        completion=_filled(answer, f"{last}.content"),
        messages=messages[:-1],
        row=row,
    )


def _message(value: object, position: int) -> tuple[str, str]:
    field = f"messages[{position}]"
    if not isinstance(value, dict):
        raise _FieldError(field, f"must be an object, got {described(value)}")
    for name in ("role", "content"):
        if value.get(name) is None:
            raise _FieldError(f"{field}.{name}", f"missing; fields seen: {_seen(value)}")
    role = _string(value["role"], f"{field}.role")
    if role not in _ROLES:
        raise _FieldError(f"{field}.role", f"{short(role)} is none of {', '.join(_ROLES)}")
    return role, _string(value["content"], f"{field}.content")


def rendered(messages: tuple[tuple[str, str], ...]) -> str:
    """Messages as plain text, `Role: content` a line, ending where the assistant answers."""
    said = [f"{role.capitalize()}: {content}" for role, content in messages]
    return "\n".join([*said, "Assistant:"])


# The order decides for rows that have the fields of several: published Alpaca files, say,
# carry a `text` column beside their own.
SHAPES = (
    Shape("choice", ("prompt", "choices", "answer"), _choice),
    Shape("chat", ("messages",), _chat),
    Shape("completion", ("prompt", "completion"), _completion),
    Shape("alpaca", ("instruction", "output"), _alpaca),
    Shape("text", ("text",), _text),
)
FIELDS = frozenset({"input", *(field for shape in SHAPES for field in shape.required)})
