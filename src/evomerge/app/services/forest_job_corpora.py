"""The corpora that a job over a forest names, read once. Slow: use a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.app.db.models import Forest
from evomerge.app.db.repositories.lookup import find
from evomerge.app.ensembles import Ensemble, StoredRouter
from evomerge.app.errors import InvalidRequestError
from evomerge.app.schemas.forest_inputs import CorpusInput
from evomerge.app.schemas.forest_specs import (
    AnyForestSpec,
    AverageSpec,
    BranchTrainSpec,
    ClusterSpec,
    CorpusSource,
    TrainSeedSpec,
)
from evomerge.app.services.context import Context
from evomerge.app.services.roots import below_roots
from evomerge.app.worker.artifacts import folder_of
from evomerge.evaluation.corpus import Corpus, CorpusError, DomainError, read_content

CLUSTERS = "clusters"


@dataclass(frozen=True)
class _Asked:
    """A corpus of a spec, and the fields that name its domain and where it is."""

    source: CorpusSource
    domain: str
    place: str


async def read_corpora(context: Context, spec: AnyForestSpec) -> list[CorpusInput]:
    """Every document of every corpus, told by hash and size.

    Raises:
        InvalidRequestError: a path lies outside the roots, the forest has no such cluster, a
            document cannot be read, or there is none; names the field, the file and the line.
    """
    asked, router = _asked(spec), None
    if any(one.source.cluster is not None for one in asked):
        router = await _router(context, spec)
    settings = context.settings

    def read() -> list[CorpusInput]:
        return [_read(one, router, settings.roots, settings.data_dir) for one in asked]

    return await asyncio.to_thread(read)


def cluster_file(home: Path, cluster: int) -> Path:
    """Where the documents of a cluster are in its job's folder."""
    return home / CLUSTERS / f"{cluster}.jsonl"


def _asked(spec: AnyForestSpec) -> list[_Asked]:
    if isinstance(spec, ClusterSpec):
        # They have no domain: what they are called says where they stand in the spec.
        return [
            _Asked(CorpusSource(domain=f"corpora.{n}", path=path), f"corpora.{n}", f"corpora.{n}")
            for n, path in enumerate(spec.corpora)
        ]
    if isinstance(spec, BranchTrainSpec | AverageSpec):
        named = [] if spec.corpus is None else [("corpus", spec.corpus)]
    else:
        named = [(f"corpora.{place}", corpus) for place, corpus in enumerate(spec.corpora)]
    return [_Asked(corpus, f"{field}.domain", f"{field}.path") for field, corpus in named]


async def _router(context: Context, spec: AnyForestSpec) -> StoredRouter | None:
    if isinstance(spec, TrainSeedSpec):
        return None
    async with context.database.read() as session:
        row = await find(session, Forest, spec.forest)
        return None if row is None else Ensemble.of(row.ensemble).router


def _read(
    asked: _Asked, router: StoredRouter | None, roots: Sequence[Path], data_dir: Path
) -> CorpusInput:
    source = asked.source
    if source.path is not None:
        path = below_roots(source.path, roots, asked.place)
    else:
        path = _cluster(asked, router, data_dir)
    try:
        content = read_content(Corpus(source.domain, path))
    except DomainError as error:
        raise InvalidRequestError(f"{asked.domain}: {error}", param=asked.domain) from error
    except CorpusError as error:
        raise InvalidRequestError(
            f"{asked.place}: {error}", param=asked.place, code="invalid_corpus"
        ) from error
    return CorpusInput(
        domain=source.domain,
        path=path,
        content_hash=content.content_hash,
        bytes=content.bytes,
        documents=content.documents,
    )


def _cluster(asked: _Asked, router: StoredRouter | None, data_dir: Path) -> Path:
    cluster = asked.source.cluster
    param = asked.place.removesuffix("path") + "cluster"
    if router is None:
        raise InvalidRequestError(
            f"{param}={cluster}: the job's forest has no router: run a cluster job over it first",
            param=param,
            code="no_router",
        )
    if cluster is None or cluster >= len(router.clusters):
        raise InvalidRequestError(
            f"{param}={cluster}: the forest's router has clusters 0 to {len(router.clusters) - 1}",
            param=param,
            code="not_found",
        )
    return cluster_file(folder_of(data_dir, router.job_id), cluster).absolute()
