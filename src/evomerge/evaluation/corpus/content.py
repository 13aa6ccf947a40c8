"""What a corpus holds, told by one pass over its documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from evomerge.evaluation.corpus.corpus import Corpus
from evomerge.evaluation.corpus.documents import documents


@dataclass(frozen=True)
class Content:
    """The documents of a corpus, in short.

    Attributes:
        content_hash: sha256 over their digests, in order; where they lie says nothing.
        documents: how many there are.
        bytes: of their texts in UTF-8.
    """

    content_hash: str
    documents: int
    bytes: int


def read_content(corpus: Corpus, tick: Callable[[], None] | None = None) -> Content:
    """Read every document of a corpus.

    Args:
        tick: called for each document; may raise to stop.

    Raises:
        CorpusError: a document cannot be read, or there is none.
    """
    whole, count, size = sha256(), 0, 0
    for document in documents(corpus):
        if tick is not None:
            tick()
        whole.update(document.digest)
        count += 1
        size += len(document.text.encode())
    return Content(whole.hexdigest(), count, size)
