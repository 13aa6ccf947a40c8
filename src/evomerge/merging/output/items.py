"""Items in answers of extraction tasks: read from any of three formats, written back in one.

Items compare in the normal form of `evaluation.metrics.items`, so that scores taken from items are
the scores of the written answer.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from evomerge.evaluation.metrics.items import items as normal_items

# How answers of a data set are written: `type: item; type: item`, one item a line, a JSON list
# of such items, or a JSON object from each type to the list of its items.
AnswerFormat = Literal["semicolons", "lines", "json_list", "json_object"]
_EMPTY: Mapping[AnswerFormat, str] = {
    "semicolons": "None",
    "lines": "None",
    "json_list": "[]",
    "json_object": "{}",
}
_FENCE = re.compile(r"^\s*```\w*\n(.*?)\n?```\s*$", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+(?=\S)")


def read_items(answer: str) -> dict[str, str]:
    """The items of an answer: normal form to the spelling that came first, in order.

    JSON where the answer (or the code block that it is) is a JSON list or object; else pieces
    between semicolons and line ends, without bullets and numbers before them where there are
    several lines.
    """
    fenced = _FENCE.match(answer)
    text = fenced.group(1) if fenced else answer
    found: dict[str, str] = {}
    for piece in _pieces(text):
        # One piece, one item: a separator within a JSON string does not cut it.
        spelling = " ".join(piece.replace(";", " ").split()).strip(" ,")
        for normal in normal_items(spelling):
            found.setdefault(normal, spelling)
    return found


def write_items(items: Iterable[str], format: AnswerFormat) -> str:
    """Items as an answer of a data set; `None` (in JSON an empty value) where there is none."""
    listed = list(items)
    if not listed:
        return _EMPTY[format]
    match format:
        case "semicolons":
            return "; ".join(listed)
        case "lines":
            return "\n".join(listed)
        case "json_list":
            return json.dumps(listed, ensure_ascii=False)
        case "json_object":
            return json.dumps(_by_type(listed), ensure_ascii=False)


def answer_format(completions: Sequence[str]) -> AnswerFormat:
    """The format that most of a data set's completions are in; semicolons where none says."""
    votes = Counter(format for text in completions if (format := _format(text)) is not None)
    return max(votes, key=lambda format: votes[format], default="semicolons")


def _format(text: str) -> AnswerFormat | None:
    """None where one item, or none, could be in any format of text."""
    loaded = _json(text)
    if isinstance(loaded, list):
        # `[]` is also what text formats write for nothing.
        return "json_list" if loaded else None
    if isinstance(loaded, dict):
        return "json_object"
    if ";" in text:
        return "semicolons"
    return "lines" if "\n" in text.strip() else None


def _pieces(text: str) -> list[str]:
    loaded = _json(text)
    if loaded is not None:
        return _flat(loaded, "")
    lines = text.strip().split("\n")
    if len(lines) > 1:
        lines = [_BULLET.sub("", line) for line in lines]
    return [piece for line in lines for piece in line.split(";")]


def _json(text: str) -> list[Any] | dict[str, Any] | None:
    if not text.strip().startswith(("[", "{")):
        return None
    # A list that was cut off still holds what stands before its last comma.
    for whole in (text, text[: max(0, text.rfind(","))] + "]"):
        try:
            loaded = json.loads(whole)
        except (ValueError, RecursionError):
            continue
        if isinstance(loaded, list | dict):
            return loaded
    return None


def _flat(value: Any, name: str) -> list[str]:
    """Items below a JSON value; `name` is the type that they stand under."""
    if isinstance(value, dict):
        kind, said = value.get("type"), value.get("item", value.get("text", value.get("value")))
        if isinstance(kind, str) and isinstance(said, str):
            return [f"{kind}: {said}"]
        return [item for key, below in value.items() for item in _flat(below, str(key))]
    if isinstance(value, list):
        return [item for below in value for item in _flat(below, name)]
    if value is None:
        return []
    said = value if isinstance(value, str) else json.dumps(value)
    return [f"{name}: {said}" if name else said]


def _by_type(items: Sequence[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for item in items:
        kind, colon, said = item.partition(":")
        grouped.setdefault(kind.strip() if colon else "", []).append(
            said.strip() if colon else item
        )
    return grouped
