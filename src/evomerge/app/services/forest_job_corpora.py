"""The corpora that a job over a forest names, read once. Slow: use a thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evomerge.app.errors import InvalidRequestError
from evomerge.app.schemas.forest_inputs import CorpusInput
from evomerge.app.schemas.forest_specs import (
    AnyForestSpec,
    BranchTrainSpec,
    CorpusSource,
    EvaluateSpec,
    TrainSeedSpec,
)
from evomerge.app.services.roots import below_roots
from evomerge.evaluation.corpus import Corpus, CorpusError, DomainError, read_content


def sources(spec: AnyForestSpec) -> list[tuple[str, CorpusSource]]:
    """Each corpus of a spec with the field that names it."""
    if isinstance(spec, TrainSeedSpec | EvaluateSpec):
        return [(f"corpora.{place}", corpus) for place, corpus in enumerate(spec.corpora)]
    if isinstance(spec, BranchTrainSpec):
        return [("corpus", spec.corpus)]
    return [] if spec.corpus is None else [("corpus", spec.corpus)]


def read_corpora(spec: AnyForestSpec, roots: Sequence[Path]) -> list[CorpusInput]:
    """Every document of every corpus, told by hash and size.

    Raises:
        InvalidRequestError: a path lies outside the roots, a document cannot be read, or there
            is none; names the field, the file and the line.
    """
    return [_read(where, source, roots) for where, source in sources(spec)]


def _read(where: str, source: CorpusSource, roots: Sequence[Path]) -> CorpusInput:
    path = below_roots(source.path, roots, f"{where}.path")
    try:
        content = read_content(Corpus(source.domain, path))
    except DomainError as error:
        raise InvalidRequestError(f"{where}.{error}", param=f"{where}.domain") from error
    except CorpusError as error:
        raise InvalidRequestError(
            f"{where}.path: {error}", param=f"{where}.path", code="invalid_corpus"
        ) from error
    return CorpusInput(
        domain=source.domain, path=path, content_hash=content.content_hash, bytes=content.bytes
    )
