"""/v1/forest_jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from evomerge.app.api.dependencies import (
    After,
    AskingDep,
    ContextDep,
    Limit,
    answered,
)
from evomerge.app.api.job_events import add_events
from evomerge.app.api.job_files import add_files
from evomerge.app.api.job_routes import METADATA_PARAMETER, FiltersDep, Shown, add_commands
from evomerge.app.api.responses import REFUSED
from evomerge.app.schemas.forest_jobs import (
    ForestJob,
    ForestJobArtifact,
    ForestJobArtifactPage,
    ForestJobEstimate,
    ForestJobEventPage,
    ForestJobPage,
    ForestJobResult,
    JobType,
)
from evomerge.app.schemas.forest_specs import ForestJobSpec
from evomerge.app.services import forest_jobs
from evomerge.app.services.forest_estimate import estimate

router = APIRouter(prefix="/v1/forest_jobs", tags=["forest jobs"])

SHOWN = Shown(
    family=forest_jobs.JOBS,
    noun="forest_job",
    job=ForestJob,
    event_page=ForestJobEventPage,
    artifact=ForestJobArtifact,
    artifact_page=ForestJobArtifactPage,
    result=ForestJobResult,
    about={
        "cancel": "End a job for good; what it was training goes with it.",
        "resume": "Queue a paused or failed job again; it goes on from its last checkpoint.",
        "result": "What a job made or found; 409 while there is none.",
        "artifacts": "The files of the checkpoint that was trained or averaged, or of the report.",
    },
)


@router.post(
    "",
    operation_id="create_forest_job",
    status_code=201,
    response_model=ForestJob,
    responses=REFUSED,
)
async def create_forest_job(
    spec: ForestJobSpec,
    context: ContextDep,
    asking: AskingDep,
) -> JSONResponse:
    """Queue a job: train a seed, branch and train an ELM, average a forest, or evaluate it.

    Whatever the spec refers to is fixed now, by id and content hash. Every document of its
    corpora is read, so this takes a while where they are large.
    """
    asked = asking.ticket(spec)
    return answered(await forest_jobs.create(context, spec, asked))


@router.get("", operation_id="list_forest_jobs", openapi_extra={"parameters": [METADATA_PARAMETER]})
async def list_forest_jobs(
    context: ContextDep,
    filters: FiltersDep,
    limit: Limit = 20,
    after: After = None,
    type: Annotated[JobType | None, Query(description="Only jobs of this type.")] = None,
) -> ForestJobPage:
    """Jobs, newest first."""
    kinds = () if type is None else (type,)
    found, more = await forest_jobs.JOBS.page(context, filters, after, limit, kinds)
    return ForestJobPage(data=found, has_more=more)


add_commands(router, SHOWN)


@router.post("/estimate", operation_id="estimate_forest_job", responses=REFUSED)
async def estimate_forest_job(spec: ForestJobSpec, context: ContextDep) -> ForestJobEstimate:
    """What a job would take at most: a dry run, which creates nothing."""
    return await estimate(context, spec)


add_events(router, SHOWN)
add_files(router, SHOWN)
