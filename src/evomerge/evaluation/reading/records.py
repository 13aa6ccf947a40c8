"""What every file format is read into: numbered records of named fields."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, TypeAlias, get_args

from evomerge.evaluation.errors import DatasetError, InvalidArgumentError, RowError, short

Format = Literal["jsonl", "json", "csv", "parquet"]

_SUFFIXES: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
}
# In this order, for a boolean is a number to Python.
_WORDS: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (str, "string"),
    (int, "number"),
    (float, "number"),
    (list, "list"),
    (dict, "object"),
)
_UTF8_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Limits:
    """What a dataset may be.

    Attributes:
        rows: rows at most.
        row_bytes: bytes of one row at most.
        errors: errors collected before reading stops.
    """

    rows: int = 1_000_000
    row_bytes: int = 16 * 2**20
    errors: int = 10


@dataclass(frozen=True)
class Record:
    """One row as its format gives it: number from 1 (blank lines not counted), and fields."""

    row: int
    fields: dict[str, object]


# A reader yields what it can read and says what it cannot, row by row.
Records: TypeAlias = Iterator[Record | RowError]


def format_of(format: str | None, name: str | None) -> Format:
    """The format asked for, or else the one that the file's name ends in.

    Raises:
        InvalidArgumentError: neither says a format that is known.
    """
    known: tuple[Format, ...] = get_args(Format)
    for one in known:
        if format == one:
            return one
    if format is not None:
        raise InvalidArgumentError("format", format, f"must be one of {', '.join(known)}")
    for suffix, one in _SUFFIXES.items():
        if name is not None and name.lower().endswith(suffix):
            return one
    raise InvalidArgumentError(
        "name", name, f"ends in none of {', '.join(_SUFFIXES)}; give the format"
    )


def record(row: int, value: object) -> Record | RowError:
    """A record of a JSON value, which must be an object."""
    if isinstance(value, dict):
        return Record(row, value)
    return RowError(row, None, f"must be an object, got {described(value)}")


def described(value: object) -> str:
    """Type, in JSON's words, and short form of a bad value."""
    if value is None:
        return "null"
    word = next((word for kind, word in _WORDS if isinstance(value, kind)), type(value).__name__)
    return f"{word} {short(value)}"


def without_bom(start: bytes) -> bytes:
    """The file's first bytes without a UTF-8 byte order mark.

    Raises:
        DatasetError: the mark is that of UTF-16.
    """
    if start.startswith(_UTF16_BOMS):
        raise DatasetError([RowError(None, None, "the file is UTF-16; save it as UTF-8")])
    return start.removeprefix(_UTF8_BOM)


def decoded(raw: bytes) -> str:
    """Text of UTF-8 bytes; bad bytes become lone surrogates, refused where a field holds one."""
    return raw.decode("utf-8", errors="surrogateescape")


def lines(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    """Lines with their ends, each at most `limit` bytes and one more, which tells it too long.

    The rest of a longer line is passed over without being held.
    """
    first = True
    while line := stream.readline(limit + 1):
        tail = line
        while len(line) > limit and not tail.endswith(b"\n"):
            tail = stream.readline(2**16)
            if not tail:
                break
        yield without_bom(line) if first else line
        first = False
