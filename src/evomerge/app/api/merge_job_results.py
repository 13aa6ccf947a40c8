"""/v1/merge_jobs/{job_id}: the result, and the files that were made."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse, StreamingResponse

from evomerge.app.api.dependencies import ContextDep, JobId
from evomerge.app.api.responses import CONFLICT, NOT_FOUND, binary
from evomerge.app.schemas.base import Text
from evomerge.app.schemas.merge_jobs import ArtifactPage, MergeJobResult
from evomerge.app.services import artifacts

router = APIRouter(
    prefix="/v1/merge_jobs/{job_id}", tags=["merge jobs"], responses=NOT_FOUND | CONFLICT
)

ArtifactName = Annotated[
    Text, Path(max_length=512, description="A name out of the list of artifacts.")
]


@router.get("/result", operation_id="get_merge_job_result")
async def get_merge_job_result(context: ContextDep, job_id: JobId) -> MergeJobResult:
    """What a job found, with its proof on held-out data; 409 while there is none."""
    return await artifacts.result(context, job_id)


@router.get("/artifacts", operation_id="list_merge_job_artifacts")
async def list_merge_job_artifacts(context: ContextDep, job_id: JobId) -> ArtifactPage:
    """The files of the merged model, its manifest and its model card."""
    return await artifacts.page(context, job_id)


@router.get(
    "/artifacts.zip",
    operation_id="download_merge_job_archive",
    response_class=StreamingResponse,
    responses=binary("application/zip", "All files in one archive."),
)
async def download_merge_job_archive(context: ContextDep, job_id: JobId) -> StreamingResponse:
    """The whole folder as one zip archive, streamed."""
    return StreamingResponse(
        await artifacts.archive(context, job_id),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{job_id}.zip"'},
    )


@router.get(
    "/artifacts/{name:path}",
    operation_id="download_merge_job_artifact",
    response_class=FileResponse,
    responses=binary("application/octet-stream", "The file."),
)
async def download_merge_job_artifact(
    context: ContextDep, job_id: JobId, name: ArtifactName
) -> FileResponse:
    """One file, streamed; parts of it by the Range header."""
    path = await artifacts.file(context, job_id, name)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)
