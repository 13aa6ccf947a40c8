"""Files in every format: what they give, and what is said of a bad one."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evomerge.evaluation.errors import (
    DatasetError,
    InvalidArgumentError,
    MissingLibraryError,
    RowError,
)
from evomerge.evaluation.example import Example
from evomerge.evaluation.normal_form import content_hash
from evomerge.evaluation.reading.reader import kind_of, read_examples, stream_examples
from evomerge.evaluation.reading.records import Format, Limits, format_of

ROWS = [
    {"prompt": 'Say "hi", twice', "completion": "hi\nhi"},
    {"prompt": "Größe?", "completion": "日本"},
]
EXAMPLES = [Example(row["prompt"], row["completion"], row=n) for n, row in enumerate(ROWS, 1)]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=1).encode()


def as_data(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps({"version": 1, "data": rows, "more": [1]}).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    def cell(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value)
        return '"' + text.replace('"', '""') + '"'

    lines = [",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]
    return "\n".join(lines).encode()


def as_parquet(table: list[dict[str, Any]], rows: int | None = None) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table).slice(0, rows), sink)
    return sink.getvalue()


WRITERS: list[tuple[Format, Callable[[list[dict[str, Any]]], bytes]]] = [
    ("jsonl", as_jsonl),
    ("json", as_json),
    ("json", as_data),
    ("csv", as_csv),
    ("parquet", as_parquet),
]


def refused(data: bytes, format: Format, **limits: int) -> tuple[RowError, ...]:
    with pytest.raises(DatasetError) as caught:
        read_examples(data, format=format, limits=Limits(**limits))
    return caught.value.errors


@pytest.mark.parametrize(("format", "write"), WRITERS)
def test_every_format_gives_the_same_examples(
    format: Format, write: Callable[[list[dict[str, Any]]], bytes]
) -> None:
    assert read_examples(write(ROWS), format=format) == EXAMPLES
    assert list(stream_examples(io.BytesIO(write(ROWS)), format=format)) == EXAMPLES


@pytest.mark.parametrize(("format", "write"), WRITERS)
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Sky?", "choices": ["blue", "green"], "answer": 1},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"instruction": "a", "input": "b", "output": "c"},
        {"text": "some text"},
    ],
    ids=["choice", "chat", "alpaca", "text"],
)
def test_every_shape_hashes_alike_in_every_format(
    format: Format, write: Callable[[list[dict[str, Any]]], bytes], row: dict[str, Any]
) -> None:
    expected = content_hash(read_examples(as_jsonl([row]), format="jsonl"))
    assert content_hash(read_examples(write([row]), format=format)) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_byte_order_mark_line_ends_and_blank_lines_change_nothing(end: bytes, mark: bytes) -> None:
    rows = [json.dumps(row).encode() for row in ROWS]
    assert read_examples(mark + end.join([*rows[:1], b"", *rows[1:], b""]), format="jsonl") == (
        EXAMPLES
    )
    assert read_examples(mark + end + as_json(ROWS), format="json") == EXAMPLES
    table = end.join([b"prompt,completion", b"a,b", b"", b"c,d", b""])
    assert read_examples(mark + table, format="csv") == [
        Example("a", "b", row=1),
        Example("c", "d", row=2),
    ]


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.jsonl", "jsonl"),
        ("A.NDJSON", "jsonl"),
        ("a.b.json", "json"),
        ("a.csv", "csv"),
        ("a.parquet", "parquet"),
    ],
)
def test_the_name_tells_the_format(name: str, format: str) -> None:
    assert format_of(None, name) == format
    assert format_of("csv", name) == "csv"


@pytest.mark.parametrize(
    ("format", "name", "message"),
    [("xml", "a.json", "format='xml'"), (None, "a.txt", r"name='a\.txt'"), (None, None, "name=")],
)
def test_an_unknown_format_is_refused(format: Any, name: str | None, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        read_examples(b"", format=format, name=name)


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (b"", "jsonl"),
        (b"\n \n", "jsonl"),
        (b"", "json"),
        (b"[]", "json"),
        (b'{"data": []}', "json"),
        (b"", "csv"),
        (b"prompt,completion\n", "csv"),
        (as_parquet([{"text": "a"}], rows=0), "parquet"),
    ],
)
def test_an_empty_dataset_is_refused(data: bytes, format: Format) -> None:
    assert refused(data, format) == (RowError(None, None, "the dataset has no rows"),)


@pytest.mark.parametrize(
    ("data", "format", "row", "message"),
    [
        (b'{"text": "a"}\n{"text": \n{"text": "b"}', "jsonl", 2, "not valid JSON: Expecting value"),
        (b'{"text": "a"}\n{"text": NaN}', "jsonl", 2, "NaN is not a JSON value"),
        (b'{"text": "a"} {"text": "b"}', "jsonl", 1, "Extra data"),
        (b'{"text": ' + b"[" * 100_000, "jsonl", 1, "nested too deeply"),
        (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", "jsonl", 1, "not valid JSON"),
        (b'[{"text": "a"}, {"text": Infinity}]', "json", 2, "Infinity is not a JSON value"),
        (b'[{"text": "a"}, {"text" "b"}]', "json", 2, "not valid JSON: Expecting ':' delimiter"),
        (b'[{"text": "a"}, ]', "json", 2, "not valid JSON"),
        (b'[{"text": "a"}', "json", 1, "Expecting ',' or ']'"),
        (b'[{"text": "a"}{"text": "b"}]', "json", 1, "Expecting ',' or ']'"),
        (b"[" * 100_000, "json", 1, "nested too deeply"),
        (b'"text"', "json", None, "must be an array"),
        (b'{"text": "a"}\n{"text": "b"}', "json", None, "one object a line is the format jsonl"),
        (b'{"data": {"text": "a"}}', "json", None, "got an object with the fields 'data'"),
        (b'{"rows" 1}', "json", None, "not valid JSON: Expecting ':' delimiter"),
        (b'{"rows": 1 "data": []}', "json", None, "not valid JSON: Expecting ',' delimiter"),
        (b'[{"text": "a"}] [{"text": "b"}]', "json", None, "not valid JSON: Extra data"),
        (b'{"data": [{"text": "a"}]', "json", None, "not valid JSON: Expecting ',' delimiter"),
        (b'{"data": [{"text": "a"}], "data": []}', "json", None, "'data' stands twice"),
        (b'{"data": [{"text": "a"}]} x', "json", None, "not valid JSON: Extra data"),
        (b"\xff\xfe{\x00", "jsonl", None, "the file is UTF-16"),
        (b"\xff\xfe{\x00", "json", None, "the file is UTF-16"),
        (b"prompt,completion\na,b\nc\n", "csv", 2, "has 1 cells, the header 2: 'c'"),
        (b'text\na\n"b\n', "csv", 2, "not valid CSV: unexpected end of data"),
        (b"prompt;completion\na;b\n", "csv", 1, "fields seen: 'prompt;completion'"),
        (b"text,text\na,b\n", "csv", None, "names this column twice"),
        (b"not parquet", "parquet", None, "not valid Parquet"),
        (b"", "parquet", None, "not valid Parquet"),
    ],
)
def test_a_broken_file_is_named_with_its_row(
    data: bytes, format: Format, row: int | None, message: str
) -> None:
    error = refused(data, format)[0]
    assert error.row == row
    assert message in error.message
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (b'{"text": "a"}\n{"text": "b\xe9"}\n{"text": "c"}', "jsonl"),
        (b'[{"text": "a"}, {"text": "b\xe9"}, {"text": "c"}]', "json"),
        (b"text\na\nb\xe9\nc\n", "csv"),
    ],
)
def test_bytes_that_are_no_utf8_are_named_with_row_and_field(data: bytes, format: Format) -> None:
    [error] = refused(data, format)
    assert (error.row, error.field) == (2, "text")
    assert "not valid UTF-8 at character 2" in error.message


def test_a_truncated_parquet_file_is_refused() -> None:
    [error] = refused(as_parquet(ROWS)[:-20], "parquet")
    assert "not valid Parquet" in error.message


def test_parquet_names_all_columns_of_an_unknown_shape() -> None:
    [error] = refused(as_parquet([{"prompt": "a", "reply": "b"}]), "parquet")
    assert "fields seen: 'prompt', 'reply'" in error.message


def test_parquet_passes_over_columns_it_does_not_need() -> None:
    rows = [row | {"image": b"\x00" * 10, "score": float("nan")} for row in ROWS]
    assert read_examples(as_parquet(rows), format="parquet") == EXAMPLES


def test_a_parquet_null_and_a_nan_answer_are_named() -> None:
    [error] = refused(as_parquet([*ROWS, {"prompt": "a", "completion": None}]), "parquet")
    assert (error.row, error.field) == (3, "completion")
    nan = {"prompt": "a", "choices": ["b", "c"], "answer": float("nan")}
    [error] = refused(as_parquet([nan]), "parquet")
    assert (error.row, error.field, error.message) == (
        1,
        "answer",
        "must be a string, got number nan",
    )


@pytest.mark.parametrize(
    ("answer", "completion"), [("1", "10"), ("10", "10"), ("0", "9"), ("9", "9")]
)
def test_a_csv_answer_is_a_choice_before_it_is_an_index(answer: str, completion: str) -> None:
    [example] = read_examples(
        f'prompt,choices,answer\nHow many?,"[""9"", ""10""]",{answer}\n'.encode(), format="csv"
    )
    assert example.completion == completion


@pytest.mark.parametrize("cell", ["blue|green", '"{""a"""', "[" * 5000])
def test_choices_in_csv_must_be_json(cell: str) -> None:
    [error] = refused(f"prompt,choices,answer\nSky?,{cell},blue\n".encode(), "csv")
    assert (error.row, error.field) == (1, "choices")
    assert "must be a JSON list" in error.message


def test_csv_fields_may_be_longer_than_the_csv_modules_default() -> None:
    long = "x" * 200_000
    assert read_examples(f"text\n{long}\n".encode(), format="csv")[0].completion == long


@pytest.mark.parametrize(("format", "write"), WRITERS)
def test_a_row_above_the_limit_is_refused(
    format: Format, write: Callable[[list[dict[str, Any]]], bytes]
) -> None:
    rows = [{"text": "short"}, {"text": "long" * 300}]
    error = refused(write(rows), format, row_bytes=1000)[0]
    assert error.row == 2
    assert "1000" in error.message


def test_a_line_of_fifty_megabytes_is_passed_over_without_being_held() -> None:
    class Stream(io.BytesIO):
        largest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            line = super().readline(size)
            self.largest = max(self.largest, len(line))
            return line

    stream = Stream(b'{"text": "' + b"x" * 50 * 2**20 + b'"}\n{"text": ""}\n')
    with pytest.raises(DatasetError) as caught:
        read_examples(stream, format="jsonl")
    assert caught.value.errors == (
        RowError(1, None, f"is longer than {16 * 2**20} bytes"),
        RowError(2, "text", "is empty: ''"),
    )
    assert stream.largest == 16 * 2**20 + 1


def test_more_rows_than_the_limit_are_refused() -> None:
    data = as_jsonl([{"text": str(n)} for n in range(5)])
    assert len(read_examples(data, format="jsonl", limits=Limits(rows=5))) == 5
    assert refused(data, "jsonl", rows=4) == (RowError(5, None, "more rows than the limit of 4"),)


def test_errors_are_collected_up_to_the_limit() -> None:
    data = b'{"text": "good"}\n' + b'{"text": ""}\n' * 30
    with pytest.raises(DatasetError) as caught:
        read_examples(data, format="jsonl")
    assert [error.row for error in caught.value.errors] == list(range(2, 12))
    assert not caught.value.complete
    assert "row 2: text: is empty: ''" in str(caught.value)
    assert str(caught.value).endswith("there may be more")


def test_several_errors_are_told_at_once() -> None:
    data = b'{"text": ""}\n{"text": "good"}\n{broken\n{"text": 3}\n'
    assert [error.row for error in refused(data, "jsonl")] == [1, 3, 4]


def test_no_example_comes_out_after_an_error() -> None:
    stream = stream_examples(b'{"text": "a"}\n{"text": ""}\n{"text": "b"}\n', format="jsonl")
    assert next(stream).completion == "a"
    with pytest.raises(DatasetError, match="row 2"):
        next(stream)


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingLibraryError, match=r"pyarrow.*evo-merging\[local\]"):
        read_examples(as_parquet(ROWS), format="parquet")


def test_the_kind_of_a_dataset() -> None:
    assert kind_of(EXAMPLES) == "completion"
    with pytest.raises(DatasetError, match="no rows"):
        kind_of([])
    with pytest.raises(DatasetError, match="row 2: mixed kinds: this row is text"):
        kind_of([EXAMPLES[0], Example("", "raw", row=2)])
