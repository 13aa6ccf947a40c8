"""Documents of a domain: cleaned, each once, kept apart, one JSONL file a domain.

A paragraph that was met before, in whatever domain, is dropped. So a licence in the head of a
thousand source files is in the corpus once, and no domain can be told by another's text.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Shorter paragraphs repeat by chance: a brace, a heading, `import os`.
REPEATABLE = 60  # characters
SHORTEST = 300  # characters of a document
LONGEST = 24_000  # characters of one, unless told; what follows in a longer one is left out
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]")
_GAP = re.compile(r"\n{3,}")
_BREAK = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Gathered:
    """One domain as it lies on disk.

    Attributes:
        domain: its name.
        path: its JSONL file, a document a line, under `text`.
        documents: how many.
        characters: in all.
    """

    domain: str
    path: Path
    documents: int
    characters: int


class Distinct:
    """Cleans documents, and lets no paragraph through twice over all that it was given."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def documents(self, texts: Iterable[str], characters: int, longest: int = LONGEST) -> list[str]:
        """What is left of the texts, in an order that their content alone decides.

        Args:
            texts: of one domain.
            characters: how many at most in all; the first documents in that order are kept.
            longest: characters of one document at most.
        """
        chosen: list[str] = []
        for text in sorted(set(map(clean, texts)), key=_digest):
            kept = self._document(text)[:longest].strip()
            if SHORTEST <= len(kept) <= characters:
                chosen.append(kept)
                characters -= len(kept)
            if characters < SHORTEST:
                break
        return chosen

    def _document(self, text: str) -> str:
        parts = [part for part in _BREAK.split(text) if self._is_new(part)]
        return "\n\n".join(parts)

    def _is_new(self, paragraph: str) -> bool:
        letters = "".join(filter(str.isalnum, paragraph)).casefold()
        if len(letters) < REPEATABLE:
            return True
        key = _digest(letters)
        new = key not in self._seen
        self._seen.add(key)
        return new


def clean(text: str) -> str:
    """The text with plain line ends, no control characters, and single blank lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    plain = _CONTROL.sub("", lines)
    return _GAP.sub("\n\n", "\n".join(line.rstrip() for line in plain.split("\n"))).strip()


def read(paths: Iterable[Path]) -> Iterator[str]:
    """The texts of files, gzipped or not; those that are no UTF-8 are left out.

    Raises:
        OSError: a file cannot be read.
    """
    for path in paths:
        raw = path.read_bytes()
        try:
            yield (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
        except UnicodeDecodeError:
            continue


def grouped(pieces: Iterable[str], size: int, between: str = "\n\n") -> Iterator[str]:
    """Short pieces that stand next to each other, joined into documents of at least `size`."""
    held: list[str] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= size:
            yield between.join(held)
            held = []
    if held:
        yield between.join(held)


def write(domain: str, documents: list[str], folder: Path) -> Gathered:
    """The domain's file, whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    path = folder / f"{domain}.jsonl"
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        for text in documents:
            file.write(json.dumps({"text": text}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return Gathered(domain, path, len(documents), sum(map(len, documents)))


def table(domains: Iterable[Gathered]) -> str:
    """Sizes, a domain a line."""
    rows = [f"{'domain':<14}{'documents':>10}{'characters':>13}"]
    rows += [f"{one.domain:<14}{one.documents:>10,}{one.characters:>13,}" for one in domains]
    return "\n".join(rows)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
