"""/v1/datasets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse

from evomerge.app.api.bodies import documented, form_body, is_form, json_body
from evomerge.app.api.dependencies import (
    After,
    AskingDep,
    ContextDep,
    Key,
    Limit,
    answered,
)
from evomerge.app.api.responses import NOT_FOUND, REFUSED, STORED, existed
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.datasets import (
    Dataset,
    DatasetCreate,
    DatasetFields,
    DatasetPage,
    DatasetPreview,
)
from evomerge.app.services import datasets
from evomerge.app.services.once import given_before, once

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

_BODY = documented(DatasetCreate, DatasetFields, {"file": "JSONL, JSON, CSV or Parquet"})


@router.post(
    "",
    operation_id="create_dataset",
    status_code=201,
    response_model=Dataset,
    responses=existed(Dataset) | REFUSED | STORED,
    openapi_extra=_BODY,
)
async def create_dataset(request: Request, context: ContextDep, asking: AskingDep) -> JSONResponse:
    """Register a dataset: upload it as a form, or name a file that the service can read.

    Every row is checked, and a bad one is named with its number. The same rows under the same
    name are the same dataset, whatever format they came in (200 instead of 201).
    """
    if is_form(request):
        async with form_body(request, DatasetFields, ["file"]) as (fields, files):
            file = files["file"]
            stored = await datasets.store(context, file.file, file.filename, fields.format, "file")
            default_name = (file.filename or "").rpartition(".")[0]
        asked = asking.ticket(fields, stored.content_hash)
    else:
        fields = body = await json_body(request, DatasetCreate)
        asked = asking.ticket(body)
        if before := await given_before(context.database, asked):
            return answered(before)
        default_name, stored = await datasets.store_path(context, body.path, body.format)
    make = datasets.creation(fields, stored, default_name)
    return answered(await once(context.database, asked, make))


@router.get("", operation_id="list_datasets")
async def list_datasets(context: ContextDep, limit: Limit = 20, after: After = None) -> DatasetPage:
    """Datasets, newest first."""
    return await datasets.page(context, after, limit)


@router.get("/{dataset}", operation_id="get_dataset", responses=NOT_FOUND)
async def get_dataset(context: ContextDep, dataset: Key) -> Dataset:
    """One dataset, by id or name."""
    return await datasets.get(context, dataset)


@router.get("/{dataset}/preview", operation_id="preview_dataset", responses=NOT_FOUND)
async def preview_dataset(
    context: ContextDep,
    dataset: Key,
    limit: Annotated[int, Query(ge=1, le=100, description="How many rows.")] = 5,
) -> DatasetPreview:
    """The first rows of a dataset in their normal form."""
    return await datasets.preview(context, dataset, limit)


@router.delete("/{dataset}", operation_id="delete_dataset", responses=NOT_FOUND)
async def delete_dataset(context: ContextDep, dataset: Key) -> Deleted:
    """Forget a dataset. Jobs that were created with it keep its rows until they end."""
    return await datasets.delete(context, dataset)
