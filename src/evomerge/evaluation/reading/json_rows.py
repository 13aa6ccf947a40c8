"""JSON and JSONL files as records."""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import BinaryIO

from evomerge.evaluation.errors import RowError, short
from evomerge.evaluation.reading.records import (
    Limits,
    Record,
    Records,
    decoded,
    lines,
    record,
    without_bom,
)

_BLANKS = " \t\r\n"


def read_jsonl(stream: BinaryIO, limits: Limits) -> Records:
    """One object a line; blank lines are passed over and not counted."""
    row = 0
    for line in lines(stream, limits.row_bytes):
        if not line.strip():
            continue
        row += 1
        if len(line) > limits.row_bytes:
            yield RowError(row, None, f"is longer than {limits.row_bytes} bytes")
            continue
        yield _parsed(row, decoded(line).strip(_BLANKS))


def _parsed(row: int, text: str) -> Record | RowError:
    try:
        return record(row, _DECODER.decode(text))
    except (ValueError, RecursionError) as error:
        return _invalid(row, text, error)


def read_json(stream: BinaryIO, limits: Limits) -> Records:
    """An array of objects, or an object whose `data` is one.

    The array is walked element by element, so that a mistake is named with its row.
    """
    text = decoded(without_bom(stream.read()))
    if not text.strip(_BLANKS):
        return
    scan = _Scan(text)
    try:
        refusal = _seek_array(scan)
    except (ValueError, RecursionError) as error:
        refusal = _invalid(None, text, error)
    if refusal is not None:
        yield refusal
        return
    closed = yield from _elements(scan)
    if not closed:
        return
    try:
        _finish(scan)
    except (ValueError, RecursionError) as error:
        yield _invalid(None, text, error)


class _Scan:
    """A place in a JSON text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.skip()

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _BLANKS:
            self.at += 1

    def takes(self, character: str) -> bool:
        """Pass over `character` and the blanks behind it, if it stands here."""
        if not self.text.startswith(character, self.at):
            return False
        self.at += 1
        self.skip()
        return True

    def value(self) -> object:
        value, self.at = _DECODER.raw_decode(self.text, self.at)
        self.skip()
        return value

    def key(self) -> object:
        """The name of a member, and go behind its colon."""
        key = self.value()
        if not self.takes(":"):
            raise self.expected("':' delimiter")
        return key

    def expected(self, what: str) -> json.JSONDecodeError:
        return json.JSONDecodeError(f"Expecting {what}", self.text, self.at)


def _seek_array(scan: _Scan) -> RowError | None:
    """Go behind the opening bracket of the rows; what is wrong if there is none."""
    wanted = 'must be an array or {"data": [...]}'
    if scan.takes("["):
        return None
    if not scan.takes("{"):
        return RowError(None, None, f"{wanted}, got {short(scan.text)}")
    seen: list[str] = []
    while not scan.takes("}"):
        if seen and not scan.takes(","):
            raise scan.expected("',' delimiter")
        key = scan.key()
        if key == "data" and scan.takes("["):
            return None
        seen.append(short(key))
        scan.value()
    fields = ", ".join(seen[:20]) or "(none)"
    hint = "one object a line is the format jsonl"
    return RowError(None, None, f"{wanted}, got an object with the fields {fields}; {hint}")


def _elements(scan: _Scan) -> Generator[Record | RowError, None, bool]:
    """The rows of the array just opened; whether it was read to its end."""
    row = 0
    if scan.takes("]"):
        return True
    while True:
        row += 1
        try:
            yield record(row, scan.value())
            if scan.takes("]"):
                return True
            if not scan.takes(","):
                raise scan.expected("',' or ']'")
        except (ValueError, RecursionError) as error:
            yield _invalid(row, scan.text, error)
            return False


def _finish(scan: _Scan) -> None:
    """What follows the rows: the rest of the object around them, if any, and nothing more."""
    if scan.text.lstrip(_BLANKS).startswith("{"):
        while not scan.takes("}"):
            if not scan.takes(","):
                raise scan.expected("',' delimiter")
            if scan.key() == "data":
                raise ValueError("the field 'data' stands twice")
            scan.value()
    if scan.at < len(scan.text):
        raise json.JSONDecodeError("Extra data", scan.text, scan.at)


def _invalid(row: int | None, text: str, error: ValueError | RecursionError) -> RowError:
    if isinstance(error, RecursionError):
        return RowError(row, None, "is nested too deeply")
    if not isinstance(error, json.JSONDecodeError):
        return RowError(row, None, f"is not valid JSON: {error}")
    near = short(text[max(0, error.pos - 20) :][:61])
    return RowError(row, None, f"is not valid JSON: {error.msg}, near {near}")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
