"""The OpenAPI document: examples for every body, names for clients, and answers that keep to it."""

from __future__ import annotations

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from pydantic import TypeAdapter
from schemathesis.specs.openapi import checks as openapi_checks
from tests.app.api.client import Api, created
from tests.app.api.conftest import Shelf
from tests.support.databases import sqlite_url

from evomerge.app.main import create_app
from evomerge.app.schemas import (
    answers,
    completions,
    datasets,
    experts,
    forest_elms,
    forest_jobs,
    forests,
    merge_jobs,
    models,
    pools,
    service,
    tokenize,
)
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.examples import MERGE_JOB_SPECS
from evomerge.app.schemas.forest_specs import ForestJobSpec
from evomerge.app.schemas.pools import PoolCreate
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.settings import Settings

Json = dict[str, Any]

MODELS = [
    MergeJobSpec,
    experts.ExpertCreate,
    experts.Expert,
    experts.ExpertPage,
    pools.PoolCreate,
    pools.Pool,
    pools.PoolPage,
    datasets.DatasetCreate,
    datasets.Dataset,
    datasets.DatasetPage,
    datasets.DatasetPreview,
    forests.ForestCreate,
    forests.ForestUpdate,
    forests.EnsembleSettings,
    forests.Forest,
    forests.ForestPage,
    forest_elms.ElmCreate,
    forest_elms.Elm,
    forest_elms.ElmPage,
    ForestJobSpec,
    forest_jobs.ForestJob,
    forest_jobs.ForestJobPage,
    forest_jobs.ForestJobResult,
    forest_jobs.ForestJobEvent,
    forest_jobs.ForestJobEventPage,
    forest_jobs.ForestJobArtifact,
    forest_jobs.ForestJobArtifactPage,
    forest_jobs.ForestJobEstimate,
    merge_jobs.MergeJob,
    merge_jobs.MergeJobPage,
    merge_jobs.MergeJobResult,
    merge_jobs.MergeJobEvent,
    merge_jobs.MergeJobEventPage,
    merge_jobs.MergeJobEvaluation,
    merge_jobs.MergeJobEvaluationPage,
    merge_jobs.Artifact,
    merge_jobs.ArtifactPage,
    merge_jobs.Estimate,
    service.Health,
    service.Readiness,
    service.Root,
    Deleted,
    models.Model,
    models.ModelList,
    answers.Completion,
    answers.ChatCompletion,
    completions.CompletionRequest,
    completions.ChatCompletionRequest,
    tokenize.TokenizeRequest,
    tokenize.Tokenized,
]


@pytest.fixture(scope="module")
def document() -> Json:
    return create_app(Settings()).openapi()


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def bodies(document: Json) -> Iterator[tuple[str, Json]]:
    """Every body that goes in or out, with a name."""
    for name, operation in operations(document):
        for kind, media in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name} {kind}", media
        for status, response in operation["responses"].items():
            for kind, media in response.get("content", {}).items():
                yield f"{name} {status} {kind}", media


def resolved(document: Json, schema: Json) -> Json:
    if "$ref" in schema:
        found: Json = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def test_every_body_has_a_worked_example(document: Json) -> None:
    lacking = [
        name
        for name, media in bodies(document)
        if not ("example" in media or resolved(document, media["schema"]).get("examples"))
    ]
    assert lacking == []


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_examples_are_what_they_are_examples_of(model: type[Any]) -> None:
    examples = model.model_config["json_schema_extra"]["examples"]
    assert examples
    for example in examples:
        # Responses name a field `metadata` that rows call `meta`.
        TypeAdapter(model).validate_python(example, by_alias=True, by_name=True)


def test_operations_are_named_for_client_generators(document: Json) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)+", name) for name in names)
    for name, operation in operations(document):
        assert operation["tags"], name
        assert operation["description"], name
        for parameter in operation.get("parameters", []):
            assert parameter.get("description") or parameter["schema"].get("description"), (
                name,
                parameter["name"],
            )


def test_every_model_and_field_is_described(document: Json) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema.get("description"), name


def test_refusals_are_documented(document: Json) -> None:
    for name, operation in operations(document):
        refusals = {"401", "422", "503"} if " /v1/" in name else set()
        assert refusals <= set(operation["responses"]), name
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")):
                assert response["content"]["application/json"]["schema"] == {
                    "$ref": "#/components/schemas/Error"
                }, (name, status)


CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
]


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    shutil.copy(sqlite_template, tmp_path)
    return sqlite_url(tmp_path)


async def test_the_examples_of_requests_work(api: Api, shelf: Shelf) -> None:
    for folder, name in zip(shelf.adapters, ("ner-movies", "re-news"), strict=False):
        created(await api.post("/v1/experts", {"path": str(folder), "name": name}))
    for name in ("films", "news"):
        await api.dataset(name)
    examples: list[Json] = PoolCreate.model_config["json_schema_extra"]["examples"]
    created(await api.post("/v1/pools", examples[0]))
    for example in MERGE_JOB_SPECS:
        created(await api.post("/v1/merge_jobs", example))
        assert (await api.post("/v1/merge_jobs/estimate", example)).status_code == 200


class Server(uvicorn.Server):
    """Tells when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.up.set()


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    """The address of the application, served by a thread."""
    server = Server(uvicorn.Config(create_app(settings), log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as bound:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            assert server.up.wait(60)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


FEW = hypothesis_settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_answers_keep_to_the_document(url: str, mode: schemathesis.GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    for result in schema.get_all_operations():
        operation = result.ok()
        if mode.is_negative and not (list(operation.iter_parameters()) or operation.body):
            continue  # nothing to be wrong

        @FEW
        @given(case=operation.as_strategy(generation_mode=mode))
        def keeps(case: schemathesis.Case) -> None:
            case.call_and_validate(checks=CHECKS)

        keeps()
