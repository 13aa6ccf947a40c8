"""Errors of corpora, one tree below EvaluationError."""

from __future__ import annotations

from pathlib import Path

from evomerge.evaluation.errors import EvaluationError, InvalidArgumentError


class CorpusError(EvaluationError, ValueError):
    """Root of everything that is wrong with a corpus."""


class DocumentError(CorpusError):
    """A document cannot be read; names the file and, where there is one, the line from 1."""

    def __init__(self, file: Path, line: int | None, reason: str) -> None:
        where = str(file) if line is None else f"{file}, line {line}"
        super().__init__(f"{where}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


class EmptyDomainError(CorpusError):
    """A domain has no document where it needs one; names the domain and its path."""

    def __init__(self, domain: str, path: Path, reason: str = "holds no document") -> None:
        super().__init__(f"domain {domain!r}: {path} {reason}")
        self.domain = domain
        self.path = path


class DomainError(InvalidArgumentError, CorpusError):
    """The name of a domain is empty, too long or given twice."""


class ShareError(InvalidArgumentError, CorpusError):
    """The shares of the development and test documents cannot be cut as asked."""
