"""A session's own search: a merge job that the caller waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from evomerge.app.db.errors import JobStateError
from evomerge.app.db.models import Job
from evomerge.app.db.repositories import jobs, queue, sessions
from evomerge.app.db.repositories.queue import FINISHED
from evomerge.app.errors import ConflictError, UnavailableError
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.result import JobResult
from evomerge.app.schemas.sessions import OptimizeBody, Optimized
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.sessions.rights import Rights
from evomerge.app.sessions.service import Sessions
from evomerge.app.worker.artifacts import folder_of
from evomerge.app.worker.method import build_optimizer

_METADATA = "session"


async def optimize(
    service: Sessions,
    rights: Rights,
    session_id: str,
    body: OptimizeBody,
    gone: Callable[[], Awaitable[bool]],
) -> Optimized:
    """Queue the session's search, wait for it, and cancel it if nobody waits any more.

    Args:
        gone: whether the caller has hung up.

    Raises:
        NotFoundError, InvalidRequestError: no such session, or its query is wrong.
        QuotaError: the search would score more than the key has left.
        ConflictError: the search failed or was cancelled.
        UnavailableError: it took longer than the service waits, and was cancelled.
    """
    row = await service.row(rights, session_id)
    if body.query_plus is not None:
        row = await service.open(rights, row.preset, body.query_plus)
    spec, inputs = MergeJobSpec.model_validate(row.spec), JobInputs.model_validate(row.inputs)
    planned = _planned(spec, [expert.name for expert in inputs.experts])
    async with service.charged(rights, planned):
        job_id = await _queue(service, row.id, spec, inputs)
        try:
            job = await _ended(service, job_id, gone)
        except BaseException:
            await _cancel(service, job_id)
            raise
        if job.status != "succeeded" or job.result is None:
            # Its words may name rows and files, which are not the caller's to know.
            raise ConflictError("the search did not succeed", code="search_failed")
        result = JobResult.model_validate(job.result)
    scored = result.usage["search"].evaluations
    if scored < planned:
        async with service.context.database.write() as session:
            await sessions.give_back(session, rights.caller, planned - scored)
    return _found(service, rights, job_id, inputs, result)


async def _queue(service: Sessions, session_id: str, spec: MergeJobSpec, inputs: JobInputs) -> str:
    async with service.context.database.write() as session:
        row: Any = await jobs.add(
            session,
            kind=jobs.MERGE,
            name=spec.name,
            spec=spec.model_dump(mode="json"),
            inputs=inputs.model_dump(mode="json"),
            meta={**spec.metadata, _METADATA: session_id},
        )
        return str(row.id)


async def _ended(service: Sessions, job_id: str, gone: Callable[[], Awaitable[bool]]) -> Job:
    """The job once it has ended. The database tells nobody: it is looked at again and again."""
    settings = service.context.settings
    deadline = time.monotonic() + settings.shared_seconds
    while True:
        async with service.context.database.read() as session:
            job = await jobs.find(session, (jobs.MERGE,), job_id)
        if job is None or job.status in FINISHED:
            if job is None:
                raise ConflictError("the search has gone", code="search_failed")
            return job
        if await gone():
            raise ConflictError("the caller has hung up", code="search_cancelled")
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"the search took longer than {settings.shared_seconds:g} s and was cancelled",
                code="search_too_long",
            )
        await asyncio.sleep(settings.poll_seconds)


async def _cancel(service: Sessions, job_id: str) -> None:
    try:
        async with service.context.database.write() as session:
            await queue.request_stop(session, job_id, "cancel")
    except JobStateError:
        return  # it has ended by itself


def _planned(spec: MergeJobSpec, names: Sequence[str]) -> int:
    optimizer = build_optimizer(spec, len(names), names=names)
    limit = spec.budget.evaluations
    if limit is None:
        return optimizer.planned_evaluations
    return min(optimizer.planned_evaluations, limit + optimizer.baseline_evaluations)


def _found(
    service: Sessions, rights: Rights, job_id: str, inputs: JobInputs, result: JobResult
) -> Optimized:
    winner, names = result.winner, [expert.name for expert in inputs.experts]
    counts: dict[str, int] = {}
    for generation in result.generations:
        counts[generation.stage] = counts.get(generation.stage, 0) + generation.evaluations
    where = job_id
    if rights.materialize:
        where = str(folder_of(service.context.settings.data_dir, job_id).absolute())
    return Optimized(
        best_loss=winner.search_loss,
        best_alpha=[winner.alpha[name][0] for name in names],
        best_beta=[winner.beta[name][0] for name in names],
        checkpoint_dir=where,
        stage1_evaluations=counts.get("denoising", 0),
        stage2_evaluations=counts.get("scaling", 0),
        best_adapter_dir=where,
    )
