"""Documents of a corpus, one at a time: files in, texts out, every error with file and line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from evomerge.evaluation.corpus.corpus import Corpus
from evomerge.evaluation.corpus.errors import DocumentError, EmptyDomainError
from evomerge.evaluation.errors import short
from evomerge.evaluation.reading.records import described

DOCUMENT_BYTES = 16 * 2**20
_JSONL = frozenset({".jsonl", ".ndjson"})


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        text: its text, not blank.
        file: where it was read.
        line: the line that it starts at, from 1.
    """

    text: str
    file: Path
    line: int = 1

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the text in UTF-8."""
        return sha256(self.text.encode()).digest()


def documents(corpus: Corpus, limit: int = DOCUMENT_BYTES) -> Iterator[Document]:
    """The documents of a corpus in the order of its files, each held alone.

    In a folder each text file is a document and each line of a JSONL file one; folders within
    it are walked, hidden files are passed over, files are taken in the order of their names.
    Where the corpus is a single text file, its documents are separated by blank lines. Blank
    documents are passed over.

    Args:
        corpus: the domain and its path.
        limit: bytes of one document, or one line of JSONL, at most; a longer one is refused
            without being held.

    Raises:
        DocumentError: a file is missing, unreadable, not UTF-8, too long, not of its format, or
            a link that leads out of the folder.
        EmptyDomainError: there is no document in it.
    """
    found = False
    for file in _files(corpus.path):
        if file.suffix.lower() in _JSONL:
            texts = _rows(file, limit)
        elif file == corpus.path:
            texts = _paragraphs(file, limit)
        else:
            texts = _whole(file, limit)
        try:
            for document in texts:
                found = True
                yield document
        except OSError as error:
            raise DocumentError(file, None, f"cannot be read: {error.strerror}") from error
    if not found:
        raise EmptyDomainError(corpus.domain, corpus.path)


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise DocumentError(path, None, "there is no such file or folder")
    home = path.resolve()
    for file in sorted(path.rglob("*")):
        if any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        if not file.resolve().is_relative_to(home):
            raise DocumentError(file, None, "is a link that leads out of the corpus")
        if file.is_file():
            yield file


def _whole(file: Path, limit: int) -> Iterator[Document]:
    with file.open("rb") as stream:
        content = stream.read(limit + 1)
    if len(content) > limit:
        raise DocumentError(file, None, _too_long("the document", limit))
    text = _text(content.removeprefix(codecs.BOM_UTF8), file, 1)
    if text.strip():
        yield Document(text, file)


def _paragraphs(file: Path, limit: int) -> Iterator[Document]:
    """Documents between blank lines."""
    held: list[bytes] = []
    start, size = 1, 0
    for number, line in _lines(file, limit):
        if line.strip():
            start = start if held else number
            held.append(line)
            size += len(line)
            if size > limit:
                raise DocumentError(file, start, _too_long("the document", limit))
        elif held:
            yield from _paragraph(held, file, start)
            held, size = [], 0
    if held:
        yield from _paragraph(held, file, start)


def _paragraph(lines: list[bytes], file: Path, start: int) -> Iterator[Document]:
    text = _text(b"".join(lines), file, start)
    if text.strip():
        yield Document(text, file, start)


def _rows(file: Path, limit: int) -> Iterator[Document]:
    """One object a line, with its document as `text`; other fields are not read."""
    for number, line in _lines(file, limit):
        if not line.strip():
            continue
        written = _text(line, file, number)
        try:
            row = json.loads(written)
        except (ValueError, RecursionError) as error:
            raise DocumentError(file, number, f"is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DocumentError(file, number, f"must be an object, got {described(row)}")
        text = row.get("text")
        if not isinstance(text, str):
            seen = ", ".join(short(name) for name in list(row)[:20]) or "(none)"
            reason = f"must be a string, got {described(text)}; fields seen: {seen}"
            raise DocumentError(file, number, f"text: {reason}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            reason = f"text: is not Unicode at character {error.start + 1}: a lone surrogate"
            raise DocumentError(file, number, reason) from error
        if text.strip():
            yield Document(text, file, number)


def _lines(file: Path, limit: int) -> Iterator[tuple[int, bytes]]:
    """Lines with their ends, numbered from 1, each at most `limit` bytes."""
    with file.open("rb") as stream:
        number = 0
        while line := stream.readline(limit + 1):
            number += 1
            if len(line) > limit:
                raise DocumentError(file, number, _too_long("the line", limit))
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def _text(content: bytes, file: Path, line: int) -> str:
    """The text of UTF-8 bytes that begin at the start of a line."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start]
        column = error.start - (before.rfind(b"\n") + 1) + 1
        reason = f"byte {column} (0x{content[error.start]:02x}) is not UTF-8"
        raise DocumentError(file, line + before.count(b"\n"), reason) from error


def _too_long(what: str, limit: int) -> str:
    return f"{what} is longer than {limit} bytes"
