"""A file of examples, read and checked row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import BinaryIO

from evomerge.evaluation.errors import DatasetError, RowError
from evomerge.evaluation.example import DatasetKind, Example
from evomerge.evaluation.reading.csv_rows import read_csv
from evomerge.evaluation.reading.json_rows import read_json, read_jsonl
from evomerge.evaluation.reading.parquet_rows import read_parquet
from evomerge.evaluation.reading.records import Format, Limits, Records, format_of
from evomerge.evaluation.reading.shapes import Shape, example_of

_READERS: dict[Format, Callable[[BinaryIO, Limits], Records]] = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "parquet": read_parquet,
}
DEFAULT_LIMITS = Limits()


def read_examples(
    source: bytes | BinaryIO,
    *,
    name: str | None = None,
    format: Format | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[Example]:
    """All examples of a dataset, in order. Arguments and errors as for `stream_examples`."""
    return list(stream_examples(source, name=name, format=format, limits=limits))


def stream_examples(
    source: bytes | BinaryIO,
    *,
    name: str | None = None,
    format: Format | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[Example]:
    """Examples of a dataset, one by one, in order.

    A dataset may yield good rows and be refused at its end: keep none of them before the
    iterator is exhausted. JSONL and CSV are held a row at a time, Parquet a batch at a time
    (its stream must seek), JSON whole.

    Args:
        source: the file's content.
        name: the file's name, which tells the format where `format` is not given.
        format: jsonl, json, csv or parquet.
        limits: how many rows, how long, and how many errors to collect.

    Raises:
        InvalidArgumentError: the format is unknown.
        DatasetError: rows are wrong, or there are none, or too many.
        MissingLibraryError: the format needs a library that is not installed.
    """
    reader = _READERS[format_of(format, name)]
    stream = BytesIO(source) if isinstance(source, bytes) else source
    return _checked(reader(stream, limits), limits)


def kind_of(examples: Sequence[Example]) -> DatasetKind:
    """The kind that all examples share.

    Raises:
        DatasetError: there are none, or they are of several kinds.
    """
    if not examples:
        raise DatasetError([_EMPTY])
    kind = examples[0].kind
    for example in examples:
        if example.kind != kind:
            message = f"mixed kinds: this row is {example.kind}, the rows before are {kind}"
            raise DatasetError([RowError(example.row, None, message)])
    return kind


def _checked(records: Records, limits: Limits) -> Iterator[Example]:
    errors: list[RowError] = []
    shape: Shape | None = None
    rows = 0
    for record in records:
        found: Example | RowError
        if isinstance(record, RowError):
            found = record
        elif record.row > limits.rows:
            found = RowError(record.row, None, f"more rows than the limit of {limits.rows}")
            raise DatasetError([*errors, found], complete=False)
        else:
            shape, found = example_of(record, shape)
        if isinstance(found, Example):
            found = _within(found, limits.row_bytes)
        rows += 1
        if isinstance(found, RowError):
            errors.append(found)
            if len(errors) >= limits.errors:
                raise DatasetError(errors, complete=False)
        elif not errors:
            yield found
    if errors:
        raise DatasetError(errors)
    if not rows:
        raise DatasetError([_EMPTY])


def _within(example: Example, limit: int) -> Example | RowError:
    texts = (example.prompt, example.completion, *example.choices)
    if sum(map(len, texts)) > limit:
        return RowError(example.row, None, f"is longer than {limit} bytes")
    return example


_EMPTY = RowError(None, None, "the dataset has no rows")
