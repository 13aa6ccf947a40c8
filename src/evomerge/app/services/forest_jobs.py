"""Jobs over forests: created with everything they refer to fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Forest, ForestElm, Job, Pool
from evomerge.app.db.repositories import forests, jobs, names, references
from evomerge.app.db.repositories.lookup import find
from evomerge.app.ensembles import Ensemble
from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.forest_inputs import (
    CorpusInput,
    ElmInput,
    ForestInput,
    ForestJobInputs,
)
from evomerge.app.schemas.forest_jobs import (
    ForestJob,
    ForestJobEvent,
    ForestJobResult,
    ResolvedForest,
)
from evomerge.app.schemas.forest_specs import (
    AnyForestSpec,
    AverageSpec,
    BranchTrainSpec,
    ClusterSpec,
    EvaluateSpec,
    ForestJobSpec,
    TrainSeedSpec,
)
from evomerge.app.services.context import Context
from evomerge.app.services.forest_ensembles import check_router
from evomerge.app.services.forest_job_checks import (
    check_average,
    check_branch,
    check_clusters,
    check_shares,
    check_training,
    seed_parameters,
)
from evomerge.app.services.forest_job_corpora import read_corpora
from evomerge.app.services.jobs import Family, own_folder, shared_fields
from evomerge.app.services.names import name_from
from evomerge.app.services.once import Answer, Make, Ticket, given_before, once
from evomerge.app.services.roots import folder_below_roots


async def create(context: Context, spec: ForestJobSpec, ticket: Ticket | None) -> Answer:
    """Queue a job, once for each ticket. Reads every document of its corpora.

    Raises:
        InvalidRequestError: the spec asks for what there is not, or cannot be; names the field.
        ConflictError: the ticket was used for something else, or a name is taken.
    """
    if before := await given_before(context.database, ticket):
        return before
    check_training(spec.root)
    corpora = await read_corpora(context, spec.root)
    return await once(context.database, ticket, creation(context, spec, corpora))


def creation(context: Context, spec: ForestJobSpec, corpora: Sequence[CorpusInput]) -> Make:
    """What checks the spec against what there is, and queues the job."""

    async def make(session: AsyncSession) -> Answer:
        await references.hold(session)
        inputs = await resolve(context, session, spec.root, corpora)
        row = await jobs.add(
            session,
            kind=spec.root.type,
            name=spec.root.name,
            spec=spec.model_dump(mode="json"),
            inputs=inputs.model_dump(mode="json"),
            meta=spec.root.metadata,
        )
        return Answer(201, resource(row).model_dump(mode="json"), row.id)

    return make


async def resolve(
    context: Context, session: AsyncSession, spec: AnyForestSpec, corpora: Sequence[CorpusInput]
) -> ForestJobInputs:
    """The ids, hashes and paths that a spec means now.

    Raises:
        InvalidRequestError: something is unknown, or does not fit; names the field.
        ConflictError: a name is taken.
    """
    if isinstance(spec, TrainSeedSpec):
        return await _seed_inputs(context, session, spec, corpora)
    row = await find(session, Forest, spec.forest)
    if row is None:
        raise InvalidRequestError(
            f"forest: no forest {spec.forest!r}", param="forest", code="not_found"
        )
    members = await forests.elms(session, row.id)
    forest = _forest_input(row, [_elm_input(elm) for elm in members])
    elm = None
    if isinstance(spec, BranchTrainSpec):
        elm = spec.elm or name_from(spec.corpus.domain, "elm")
        check_branch(spec, elm, forest, context.settings.max_pool_experts)
        await _refuse_taken_elm(session, forest, elm)
    elif isinstance(spec, ClusterSpec):
        check_clusters(spec, corpora)
    else:
        _check_not_empty(forest)
        ids = [member.job_id for member in members if member.job_id]
        if isinstance(spec, EvaluateSpec) and "router" in spec.weightings:
            ensemble = Ensemble.of(row.ensemble)
            check_router(ensemble, [elm.corpus_hash for elm in forest.elms], "weightings")
            # Its words and centres were fitted on documents too.
            ids += [ensemble.router.job_id] if ensemble.router else []
        check_shares(spec.shares, await jobs.trained(session, ids, forest.seed_hash))
        if isinstance(spec, AverageSpec):
            check_average(spec, forest)
    return ForestJobInputs(
        forest=forest, corpora=list(corpora), elm=elm, parameters=forest.parameters
    )


def resource(row: Job) -> ForestJob:
    """A row as clients see it."""
    inputs = ForestJobInputs.model_validate(row.inputs)
    forest = inputs.forest
    return ForestJob(
        **shared_fields(row),
        type=row.kind,
        spec=ForestJobSpec.model_validate(row.spec),
        inputs=ResolvedForest(
            forest_id=forest.id if forest else None,
            forest=forest.name if forest else None,
            seed_hash=forest.seed_hash if forest else None,
            elms=_shown(forest.elms if forest else []),
            corpora=_shown(inputs.corpora),
        ),
    )


def outcome(row: Job) -> ForestJobResult:
    """The result of a job that has one, as clients see it."""
    body = {**(row.result or {}), "forest_job_id": row.id, "type": row.kind}
    return ForestJobResult.model_validate(body)


def files_of(data_dir: Path, row: Job) -> Path:
    """Where the files of a job are: those of an ELM are kept by their content."""
    path = ((row.result or {}).get("checkpoint") or {}).get("path")
    return own_folder(data_dir, row) if path is None else Path(path)


JOBS: Family[ForestJob, ForestJobEvent, ForestJobResult] = Family(
    "forest job", jobs.FOREST_KINDS, resource, ForestJobEvent, outcome, files_of
)


def _shown(rows: Sequence[BaseModel]) -> list[Mapping[str, object]]:
    return [row.model_dump() for row in rows]


async def _seed_inputs(
    context: Context, session: AsyncSession, spec: TrainSeedSpec, corpora: Sequence[CorpusInput]
) -> ForestJobInputs:
    tokenizer = spec.architecture.tokenizer
    folder = None
    if tokenizer is not None:
        param = "architecture.tokenizer"
        folder = folder_below_roots(tokenizer, context.settings.roots, param)
    if spec.forest is not None:
        pool = await names.owner(session, Pool, spec.forest)
        owner = pool or await names.owner(session, Forest, spec.forest)
        if owner is not None:
            raise ConflictError(
                f"forest={spec.forest!r}: {owner} has this name",
                param="forest",
                code="name_taken",
            )
    parameters = seed_parameters(spec.architecture, folder)
    return ForestJobInputs(corpora=list(corpora), tokenizer=folder, parameters=parameters)


def _elm_input(row: ForestElm) -> ElmInput:
    return ElmInput(
        name=row.name,
        domain=row.domain,
        path=Path(row.path),
        content_hash=row.content_hash,
        tokens=row.tokens,
        own_tokens=row.own_tokens,
        corpus_hash=row.lineage.get("corpus_hash"),
    )


def _forest_input(row: Forest, elms: list[ElmInput]) -> ForestInput:
    return ForestInput(
        id=row.id,
        name=row.name,
        seed_path=Path(row.seed_path),
        seed_hash=row.seed_hash,
        seed_tokens=row.seed_lineage.get("tokens", 0),
        ensemble=Ensemble.of(row.ensemble).stored(),
        parameters=row.architecture["parameters"],
        bytes=row.architecture["bytes"],
        elms=elms,
    )


async def _refuse_taken_elm(session: AsyncSession, forest: ForestInput, elm: str) -> None:
    job = await jobs.training_elm(session, forest.id, elm)
    if job is not None:
        raise ConflictError(
            f"elm={elm!r}: job {job} is training an ELM of this name", param="elm", code="in_use"
        )


def _check_not_empty(forest: ForestInput) -> None:
    if not forest.elms:
        raise InvalidRequestError(
            f"forest: {forest.name!r} has no ELM yet", param="forest", code="empty_forest"
        )
