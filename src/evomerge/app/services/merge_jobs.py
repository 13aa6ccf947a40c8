"""Merge jobs: created with everything they refer to fixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Dataset, Job
from evomerge.app.db.repositories import jobs, references
from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.inputs import DatasetInput, ExpertInput, JobInputs
from evomerge.app.schemas.merge_jobs import (
    MergeJob,
    MergeJobEvent,
    MergeJobResult,
    ResolvedInputs,
)
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services.context import Context
from evomerge.app.services.datasets import first_example
from evomerge.app.services.inspection import UninspectedError
from evomerge.app.services.jobs import Family, own_folder, shared_fields
from evomerge.app.services.members import Members, find_members
from evomerge.app.services.once import Answer, Make, Ticket, once
from evomerge.app.services.references import find_datasets
from evomerge.app.services.remote import (
    check_place,
    check_remote,
    their_datasets,
    their_experts,
)
from evomerge.app.services.spaces import check_space
from evomerge.app.worker.method import build_optimizer
from evomerge.evaluation import MetricError, check_metric
from evomerge.optimizers import InvalidParameterError

# What was looked at may change before the job is written, and is then looked at again.
_LOOKS = 4


async def create(context: Context, spec: MergeJobSpec, ticket: Ticket | None) -> Answer:
    """Queue a job, once for each ticket.

    Raises:
        InvalidRequestError: the spec asks for what there is not, or cannot be; names the field.
        ConflictError: the ticket was used for something else, or inputs keep changing.
        UnavailableError: the base cannot be read.
    """
    for _ in range(_LOOKS):
        try:
            return await once(context.database, ticket, creation(context, spec))
        except UninspectedError as error:
            await context.inspection.look(spec, error.inputs)
    raise ConflictError("the base or a dataset is being changed; try again", code="input_changed")


def creation(context: Context, spec: MergeJobSpec) -> Make:
    """What checks the spec against what there is, and queues the job.

    It raises UninspectedError where something slow has to be looked at first.
    """

    async def make(session: AsyncSession) -> Answer:
        check_place(spec, context.settings)
        await references.hold(session)
        found = await resolve(session, spec, context.settings.max_pool_experts)
        inputs = context.inspection.passed(spec, found)
        row = await jobs.add(
            session,
            kind=jobs.MERGE,
            name=spec.name,
            spec=spec.model_dump(mode="json"),
            inputs=inputs.model_dump(mode="json"),
            meta=spec.metadata,
        )
        return Answer(201, resource(row).model_dump(mode="json"), row.id)

    return make


async def resolve(session: AsyncSession, spec: MergeJobSpec, max_experts: int) -> JobInputs:
    """The ids, hashes and paths that a spec means now.

    Raises:
        InvalidRequestError: something is unknown, or cannot be searched on; names the field.
    """
    check_remote(spec)
    theirs = spec.remote if spec.remote is not None and spec.remote.adapters is not None else None
    if theirs is None:
        members = await find_members(session, spec)
    else:
        members = Members(their_experts(theirs))
    experts = members.experts
    if len(experts) > max_experts:
        raise InvalidRequestError(
            f"experts: {len(experts)} of them, the service takes {max_experts}", param="experts"
        )
    if theirs is not None and theirs.provider == "bmm":
        datasets = their_datasets(spec, theirs)
    else:
        datasets = await _datasets(session, spec, [] if theirs is not None else experts)
    _check_method(spec, [expert.name for expert in experts])
    return JobInputs(
        base=members.base,
        seed=members.seed,
        pool_id=members.pool_id,
        experts=experts,
        datasets=datasets,
    )


def resource(row: Job) -> MergeJob:
    """A row as clients see it."""
    return MergeJob(
        **shared_fields(row),
        spec=MergeJobSpec.model_validate(row.spec),
        inputs=ResolvedInputs.model_validate(row.inputs),
    )


def outcome(row: Job) -> MergeJobResult:
    """The result of a job that has one, as clients see it."""
    return MergeJobResult.model_validate({**(row.result or {}), "merge_job_id": row.id})


JOBS: Family[MergeJob, MergeJobEvent, MergeJobResult] = Family(
    "merge job", (jobs.MERGE,), resource, MergeJobEvent, outcome, own_folder
)


async def _datasets(
    session: AsyncSession, spec: MergeJobSpec, experts: Sequence[ExpertInput]
) -> list[DatasetInput]:
    keys = [one.dataset for one in spec.objective.datasets]
    datasets = await find_datasets(session, keys)
    if experts:
        check_space(spec, experts, datasets)
    await _check_metrics(spec, datasets)
    weights = [one.weight for one in spec.objective.datasets]
    return [
        DatasetInput(
            id=one.id,
            name=one.name,
            path=Path(one.path),
            content_hash=one.content_hash,
            rows=one.rows,
            weight=weight,
        )
        for one, weight in zip(datasets, weights, strict=True)
    ]


async def _check_metrics(spec: MergeJobSpec, datasets: Sequence[Dataset]) -> None:
    """Refuse metrics that cannot score the datasets' kind of rows."""
    wanted: list[tuple[str, Any]] = [("objective.metric", spec.objective.metric)]
    wanted += [(f"objective.report.{n}", one) for n, one in enumerate(spec.objective.report)]
    wanted = [(where, metric) for where, metric in wanted if metric != "cross_entropy"]
    if not wanted:
        return
    for dataset in datasets:
        example = await first_example(Path(dataset.path))
        for where, metric in wanted:
            try:
                check_metric(metric, [example])
            except MetricError as error:
                raise InvalidRequestError(
                    f"{where}: {metric!r} cannot score dataset {dataset.name!r}: {error.reason}",
                    param=where,
                ) from error


def _check_method(spec: MergeJobSpec, names: Sequence[str]) -> None:
    try:
        build_optimizer(spec, len(names), names=names)
    except InvalidParameterError as error:
        raise InvalidRequestError(f"method.{error}", param=f"method.{error.name}") from error
