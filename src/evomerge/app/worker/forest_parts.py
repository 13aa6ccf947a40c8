"""The documents of a corpus that choose and those that test, as a job was created with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from evomerge.app.schemas.forest_inputs import CorpusInput
from evomerge.app.schemas.forest_specs import Shares
from evomerge.app.worker.errors import InputChangedError, JobError
from evomerge.evaluation.corpus import Corpus, Document, Part, documents
from evomerge.evaluation.corpus import Shares as CorpusShares


@dataclass(frozen=True)
class Parts:
    """Texts of one domain, those of each part in the order of the corpus.

    Attributes:
        domain: its name.
        dev: development documents.
        test: test documents.
    """

    domain: str
    dev: tuple[str, ...]
    test: tuple[str, ...]


def read_parts(corpus: CorpusInput, shares: Shares, dev_most: int, test_most: int | None) -> Parts:
    """The first development documents and the first test documents of a corpus.

    Args:
        dev_most: so many development documents at most.
        test_most: so many test documents at most, 0 for none; None for all.

    Raises:
        InputChangedError: the documents are not those that the job was created with.
        JobError: a part that is wanted has no document.
        CorpusError: a document cannot be read.
    """
    cut = CorpusShares(dev=shares.dev_share, test=shares.test_share)
    most = {"dev": dev_most, "test": test_most}
    texts: dict[str, list[str]] = {"dev": [], "test": []}
    for document in held_to(corpus):
        part: Part = cut.part(document.digest)
        if part != "train" and _room(len(texts[part]), most[part]):
            texts[part].append(document.text)
    for part in ("dev", "test"):
        if most[part] != 0 and not texts[part]:
            share = getattr(shares, f"{part}_share")
            raise JobError(
                "empty_part",
                f"domain {corpus.domain!r}: no {part} document at {part}_share={share}",
                f"shares.{part}_share",
            )
    return Parts(corpus.domain, tuple(texts["dev"]), tuple(texts["test"]))


def held_to(corpus: CorpusInput) -> Iterator[Document]:
    """The documents of a corpus; after the last one they are known to be those of the job.

    Raises:
        InputChangedError: they are not those that the job was created with.
        CorpusError: a document cannot be read.
    """
    whole = sha256()
    for document in documents(Corpus(corpus.domain, corpus.path)):
        whole.update(document.digest)
        yield document
    if whole.hexdigest() != corpus.content_hash:
        raise InputChangedError(f"the corpus of domain {corpus.domain!r}", "has changed")


def _room(held: int, most: int | None) -> bool:
    return most is None or held < most
