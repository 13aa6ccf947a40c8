"""The texts that are scored: pieces of documents that no training has seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from evomerge.evaluation.corpus import Corpus, Part, Shares, documents


@dataclass(frozen=True)
class Piece:
    """A stretch of a document.

    Attributes:
        document: its document's number within the domain, from 0.
        text: what is scored.
    """

    document: int
    text: str


@lru_cache(maxsize=256)
def pieces(
    corpus: Corpus, shares: Shares, part: Part, count: int, characters: int
) -> tuple[Piece, ...]:
    """Pieces of a part's documents: one of each document, then a second one of each, and so on.

    Args:
        corpus: the domain.
        shares: what cuts the parts.
        part: whose documents are taken, in the order of their digests.
        count: pieces at most.
        characters: of a piece, cut at line ends where there are any.
    """
    chosen = [text for text in documents(corpus) if shares.part(text.digest) == part]
    chosen.sort(key=lambda document: document.digest)
    cuts = [list(_cut(document.text, characters)) for document in chosen[:count]]
    # A document's head is seldom like the rest of it, so it is taken last.
    turns = [[*own[1:], own[0]] for own in cuts if own]
    found: list[Piece] = []
    for turn in range(max(map(len, turns), default=0)):
        for number, own in enumerate(turns):
            if turn < len(own) and len(found) < count:
                found.append(Piece(number, own[turn]))
    return tuple(found)


def _cut(text: str, characters: int) -> Iterator[str]:
    """Stretches of whole lines, each of at least `characters`; the rest of the text is left."""
    held, size = [], 0
    for line in text.splitlines(keepends=True):
        for begin in range(0, len(line), characters):
            some = line[begin : begin + characters]
            held.append(some)
            size += len(some)
            if size >= characters:
                yield "".join(held)[:characters]
                held, size = [], 0
