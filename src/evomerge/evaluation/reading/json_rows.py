"""JSON and JSONL files as records."""

from __future__ import annotations

import json
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
    except ValueError as error:
        return _invalid(row, text, 0, error)
    except RecursionError:
        return RowError(row, None, f"is nested too deeply: {short(text)}")


def read_json(stream: BinaryIO, limits: Limits) -> Records:
    """An array of objects, or an object whose `data` is one.

    The array is walked element by element, so that a mistake is named with its row.
    """
    text = decoded(without_bom(stream.read()))
    if not text.strip(_BLANKS):
        return
    start = _Scan(text)
    try:
        found = _seek_array(start)
    except (ValueError, RecursionError) as error:
        yield _invalid(None, text, start.at, error)
        return
    if found is not None:
        yield found
        return
    yield from _elements(start)


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


def _seek_array(scan: _Scan) -> RowError | None:
    """Go behind the opening bracket of the rows; what is wrong if there is none."""
    if scan.takes("["):
        return None
    if not scan.takes("{"):
        return RowError(None, None, f'must be an array or {{"data": [...]}}: {short(scan.text)}')
    seen = []
    while not scan.takes("}"):
        key = scan.value()
        if not scan.takes(":"):
            raise json.JSONDecodeError("Expecting ':' delimiter", scan.text, scan.at)
        if key == "data" and scan.takes("["):
            return None
        seen.append(str(key))
        scan.value()
        scan.takes(",")
    return RowError(
        None,
        None,
        f'must be an array or {{"data": [...]}}, got an object with the fields '
        f"{', '.join(map(short, seen)) or '(none)'}; one object a line is the format jsonl",
    )


def _elements(scan: _Scan) -> Records:
    """The rows of the array just opened."""
    row = 0
    if scan.takes("]"):
        return
    while True:
        row += 1
        try:
            yield record(row, scan.value())
        except (ValueError, RecursionError) as error:
            yield _invalid(row, scan.text, scan.at, error)
            return
        if scan.takes("]"):
            return
        if not scan.takes(","):
            yield RowError(
                row,
                None,
                f"is followed by neither ',' nor ']': {short(scan.text[scan.at : scan.at + 61])}",
            )
            return


def _invalid(
    row: int | None, text: str, start: int, error: ValueError | RecursionError
) -> RowError:
    if isinstance(error, RecursionError):
        return RowError(row, None, "is nested too deeply")
    if not isinstance(error, json.JSONDecodeError):
        return RowError(row, None, f"is not valid JSON: {error}")
    near = short(text[max(start, error.pos - 20) :][:61])
    return RowError(row, None, f"is not valid JSON: {error.msg}, near {near}")


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
