"""A domain and where its documents are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.evaluation.corpus.errors import DomainError

_LONGEST = 128


@dataclass(frozen=True)
class Corpus:
    """The documents of one domain.

    Attributes:
        domain: the name of their provenance.
        path: a text file, a JSONL file, or a folder of both (see `documents`).

    Raises:
        DomainError: the name is blank, longer than 128 characters, or holds a line break.
    """

    domain: str
    path: Path

    def __post_init__(self) -> None:
        name = self.domain
        if not name.strip() or len(name) > _LONGEST or not name.isprintable():
            raise DomainError(
                "domain", name, f"must be a name of 1 to {_LONGEST} printable characters"
            )


def check_domains(corpora: Sequence[Corpus]) -> None:
    """Refuse no corpus at all, and two of one domain.

    Raises:
        DomainError: names the domain that is there twice.
    """
    if not corpora:
        raise DomainError("corpora", [], "at least one domain is needed")
    seen: set[str] = set()
    for corpus in corpora:
        if corpus.domain in seen:
            raise DomainError("domain", corpus.domain, "stands more than once")
        seen.add(corpus.domain)
