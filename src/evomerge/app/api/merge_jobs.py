"""/v1/merge_jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from evomerge.app.api.dependencies import (
    After,
    AskingDep,
    ContextDep,
    JobId,
    Limit,
    answered,
)
from evomerge.app.api.job_events import add_events
from evomerge.app.api.job_files import add_files
from evomerge.app.api.job_routes import METADATA_PARAMETER, FiltersDep, Shown, add_commands
from evomerge.app.api.responses import NOT_FOUND, REFUSED
from evomerge.app.schemas.merge_jobs import (
    Artifact,
    ArtifactPage,
    Estimate,
    MergeJob,
    MergeJobEvaluationPage,
    MergeJobEventPage,
    MergeJobPage,
    MergeJobResult,
)
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services import job_log, merge_jobs
from evomerge.app.services.estimate import estimate

router = APIRouter(prefix="/v1/merge_jobs", tags=["merge jobs"])

SHOWN = Shown(
    family=merge_jobs.JOBS,
    noun="merge_job",
    job=MergeJob,
    event_page=MergeJobEventPage,
    artifact=Artifact,
    artifact_page=ArtifactPage,
    result=MergeJobResult,
    about={
        "cancel": "End a job for good; what it has scored stays readable.",
        "resume": "Queue a paused or failed job again; nothing that was scored is scored again.",
        "result": "What a job found, with its proof on held-out data; 409 while there is none.",
        "artifacts": "The files of the merged model, its manifest and its model card.",
    },
)


@router.post(
    "",
    operation_id="create_merge_job",
    status_code=201,
    response_model=MergeJob,
    responses=REFUSED,
)
async def create_merge_job(
    spec: MergeJobSpec,
    context: ContextDep,
    asking: AskingDep,
) -> JSONResponse:
    """Queue a search. Whatever the spec refers to is fixed now, by id and content hash."""
    asked = asking.ticket(spec)
    return answered(await merge_jobs.create(context, spec, asked))


@router.get("", operation_id="list_merge_jobs", openapi_extra={"parameters": [METADATA_PARAMETER]})
async def list_merge_jobs(
    context: ContextDep, filters: FiltersDep, limit: Limit = 20, after: After = None
) -> MergeJobPage:
    """Jobs, newest first."""
    found, more = await merge_jobs.JOBS.page(context, filters, after, limit)
    return MergeJobPage(data=found, has_more=more)


add_commands(router, SHOWN)


@router.post("/estimate", operation_id="estimate_merge_job", responses=REFUSED)
async def estimate_merge_job(spec: MergeJobSpec, context: ContextDep) -> Estimate:
    """What a job would cost at most: a dry run, which creates and spends nothing."""
    return await estimate(context, spec)


add_events(router, SHOWN)


@router.get("/{job_id}/evaluations", operation_id="list_merge_job_evaluations", responses=NOT_FOUND)
async def list_merge_job_evaluations(
    context: ContextDep,
    job_id: JobId,
    limit: Limit = 20,
    after: Annotated[
        str | None, Query(max_length=32, description="Behind this id, the last one before.")
    ] = None,
    stage: Annotated[
        str | None,
        Query(
            max_length=32,
            pattern=r"^[a-z_]+$",
            description="Only this stage: probe, denoising, scaling, random or held_out.",
        ),
    ] = None,
) -> MergeJobEvaluationPage:
    """Scored candidates in the order of the search; those of the proof come last."""
    return await job_log.evaluation_page(context, job_id, stage, after, limit)


add_files(router, SHOWN)
