"""CSV files as records."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from typing import BinaryIO

from evomerge.evaluation.errors import RowError, short
from evomerge.evaluation.reading.records import Limits, Record, Records, decoded, lines

# Cells that hold a JSON list, for want of lists in CSV.
_LISTS = ("choices", "messages")


def read_csv(stream: BinaryIO, limits: Limits) -> Records:
    """Comma-separated rows under a header (RFC 4180); a row is counted without the header.

    `choices` and `messages` are JSON lists in a cell; `answer` is one of the choices or, where
    no choice reads so, its index from 0.
    """
    # The module's limit is one for the process and 128 KiB by default; it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), limits.row_bytes))
    reader = csv.reader(_text(stream, limits.row_bytes), strict=True)
    row = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        if wrong := _bad_header(header):
            yield wrong
            return
        for cells in reader:
            if not cells:
                continue
            row += 1
            yield _record(row, header, cells)
    except csv.Error as error:
        yield RowError(row + 1, None, f"is not valid CSV: {error}")


def _text(stream: BinaryIO, limit: int) -> Iterator[str]:
    for line in lines(stream, limit):
        if len(line) > limit:
            raise csv.Error(f"a line is longer than {limit} bytes")
        yield decoded(line)


def _bad_header(header: list[str]) -> RowError | None:
    for name in header:
        if header.count(name) > 1:
            return RowError(None, name or None, "the header names this column twice")
    return None


def _record(row: int, header: list[str], cells: list[str]) -> Record | RowError:
    if len(cells) != len(header):
        return RowError(
            row,
            None,
            f"has {len(cells)} cells, the header {len(header)}: {short(','.join(cells))}",
        )
    fields: dict[str, object] = dict(zip(header, cells, strict=True))
    for name in _LISTS:
        if cell := fields.get(name):
            try:
                fields[name] = json.loads(str(cell))
            except (ValueError, RecursionError):
                return RowError(row, name, f"must be a JSON list, got {short(cell)}")
        elif name in fields:
            fields[name] = None
    answer, choices = fields.get("answer"), fields.get("choices")
    if isinstance(choices, list) and answer not in choices and _is_index(answer):
        fields["answer"] = int(str(answer))
    return Record(row, fields)


def _is_index(cell: object) -> bool:
    return isinstance(cell, str) and cell.isdecimal() and len(cell) < 10
