"""The one way a dataset is written, whatever it was uploaded as."""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256

from evomerge.evaluation.example import Example
from evomerge.evaluation.reading.reader import read_examples
from evomerge.evaluation.reading.records import Limits


def to_jsonl(examples: Iterable[Example]) -> bytes:
    """Canonical JSONL: UTF-8, keys sorted, no blanks, one line feed behind each row.

    Row numbers are not written; they are the order of the rows.
    """
    return b"".join(to_line(example) for example in examples)


def to_line(example: Example) -> bytes:
    """One row of `to_jsonl`, with its line feed."""
    written = json.dumps(
        _fields(example), ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
    return written.encode() + b"\n"


def from_jsonl(data: bytes) -> list[Example]:
    """The examples that `to_jsonl` wrote, numbered from 1.

    Raises:
        DatasetError: these bytes are not a valid dataset.
    """
    size = max(1, len(data))
    return read_examples(data, format="jsonl", limits=Limits(rows=size, row_bytes=size))


def content_hash(examples: Iterable[Example]) -> str:
    """SHA-256 of the normal form, in hexadecimal: same rows, same hash."""
    digest = sha256()
    for example in examples:
        digest.update(to_line(example))
    return digest.hexdigest()


def _fields(example: Example) -> dict[str, object]:
    if example.messages:
        said = (*example.messages, ("assistant", example.completion))
        return {"messages": [{"role": role, "content": content} for role, content in said]}
    if example.kind == "choice":
        return {
            "prompt": example.prompt,
            "choices": list(example.choices),
            "answer": example.completion,
        }
    if example.kind == "text":
        return {"text": example.completion}
    return {"prompt": example.prompt, "completion": example.completion}
