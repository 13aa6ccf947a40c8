"""The result of a job, and the files that it made: routes of every kind of job."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import FileResponse, StreamingResponse

from evomerge.app.api.dependencies import ContextDep, JobId
from evomerge.app.api.job_routes import Shown
from evomerge.app.api.responses import CONFLICT, NOT_FOUND, binary
from evomerge.app.schemas.base import Page, Text
from evomerge.app.schemas.result import ArtifactResult
from evomerge.app.services import artifacts
from evomerge.app.services.jobs import E, J, R, WithArtifacts

ArtifactName = Annotated[
    Text, Path(max_length=512, description="A name out of the list of artifacts.")
]
_REFUSED = NOT_FOUND | CONFLICT


def add_files(router: APIRouter, shown: Shown[J, E, R]) -> None:
    """The result, the list of artifacts, each of them, and all in one archive."""
    family, noun = shown.family, shown.noun

    @router.get(
        "/{job_id}/result",
        operation_id=f"get_{noun}_result",
        response_model=shown.result,
        responses=_REFUSED,
        description=shown.about["result"],
    )
    async def get_result(context: ContextDep, job_id: JobId) -> WithArtifacts:
        return await family.result(context, job_id)

    @router.get(
        "/{job_id}/artifacts",
        operation_id=f"list_{noun}_artifacts",
        response_model=shown.artifact_page,
        responses=_REFUSED,
        description=shown.about["artifacts"],
    )
    async def list_artifacts(context: ContextDep, job_id: JobId) -> Page[ArtifactResult]:
        found = await artifacts.page(context, family, job_id)
        data = [shown.artifact(**vars(one)) for one in found]
        return Page[ArtifactResult](data=data, has_more=False)

    @router.get(
        "/{job_id}/artifacts.zip",
        operation_id=f"download_{noun}_archive",
        response_class=StreamingResponse,
        responses=_REFUSED | binary("application/zip", "All files in one archive."),
        description="The whole folder as one zip archive, streamed.",
    )
    async def download_archive(context: ContextDep, job_id: JobId) -> StreamingResponse:
        return StreamingResponse(
            await artifacts.archive(context, family, job_id),
            media_type="application/zip",
            headers={"Content-Disposition": f'attachment; filename="{job_id}.zip"'},
        )

    @router.get(
        "/{job_id}/artifacts/{name:path}",
        operation_id=f"download_{noun}_artifact",
        response_class=FileResponse,
        responses=_REFUSED | binary("application/octet-stream", "The file."),
        description="One file, streamed; parts of it by the Range header.",
    )
    async def download_artifact(
        context: ContextDep, job_id: JobId, name: ArtifactName
    ) -> FileResponse:
        path = await artifacts.file(context, family, job_id, name)
        return FileResponse(path, media_type="application/octet-stream", filename=path.name)
