"""Corpora: documents by domain, and which of them train, develop and test."""

from evomerge.evaluation.corpus.content import Content, read_content
from evomerge.evaluation.corpus.corpus import Corpus, check_domains
from evomerge.evaluation.corpus.documents import Document, documents
from evomerge.evaluation.corpus.errors import (
    CorpusError,
    DocumentError,
    DomainError,
    EmptyDomainError,
    ShareError,
)
from evomerge.evaluation.corpus.parts import PARTS, Part, Shares

__all__ = [
    "PARTS",
    "Content",
    "Corpus",
    "CorpusError",
    "Document",
    "DocumentError",
    "DomainError",
    "EmptyDomainError",
    "Part",
    "ShareError",
    "Shares",
    "check_domains",
    "documents",
    "read_content",
]
