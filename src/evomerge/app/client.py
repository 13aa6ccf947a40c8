"""A client of the HTTP API, for the command line, the demo and your own programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from evomerge.app.db.ids import FOREST_JOB
from evomerge.app.schemas.forest_specs import ForestJobSpec
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.connectors.http import (
    BadAnswerError,
    HttpClient,
    Params,
    Part,
    StatusError,
    Transport,
    UnreachableError,
)
from evomerge.connectors.wire import Timeouts

Json = dict[str, Any]
Collection = Literal["merge_jobs", "forest_jobs", "experts", "pools", "datasets", "forests"]
Jobs = Literal["merge_jobs", "forest_jobs"]
# What a job may be asked for as.
JobSpec = MergeJobSpec | ForestJobSpec
Sleep = Callable[[float], Awaitable[None]]

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
# What a job does not leave by itself.
RESTING = TERMINAL | {"paused"}
PAGE = 100


class EvoMergeClient:
    """One server's API. Use as an async context manager; every method raises `HttpError`s."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeouts: Timeouts | None = None,
        transport: Transport | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._http = HttpClient(url, key=key, timeouts=timeouts, transport=transport)
        self._sleep = sleep
        self.url = url.rstrip("/")

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._http.__aexit__(*exc)

    # Any resource

    async def list(
        self,
        collection: Collection,
        *,
        limit: int | None = None,
        page: int = PAGE,
        filters: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Json]:
        """The resources of a collection, newest first, at most `limit`, fetched `page` at once."""
        pages = self._pages(f"/v1/{collection}", dict(filters or {}), limit, page)
        async for resource in pages:
            yield resource

    async def get(self, collection: Collection, id_or_name: str) -> Json:
        """One resource, by id or by name."""
        return await self._object("GET", _path(collection, id_or_name))

    async def delete(self, collection: Collection, id_or_name: str) -> Json | None:
        """Forget one resource."""
        answer: Json | None = await self._http.json("DELETE", _path(collection, id_or_name))
        return answer

    async def create(
        self, collection: Collection, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Json:
        """POST a body as it stands; the same idempotency key gives the same resource again."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        return await self._object("POST", f"/v1/{collection}", body=dict(body), headers=headers)

    # Jobs

    async def submit(
        self, spec: JobSpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Json:
        """Queue a job: a merge, or where the spec has a type, one over a forest."""
        body = _body(spec)
        return await self.create(_asked(body), body, idempotency_key=idempotency_key)

    async def estimate(self, spec: JobSpec | Mapping[str, Any]) -> Json:
        """What a job would cost; nothing is created."""
        body = _body(spec)
        return await self._object("POST", f"/v1/{_asked(body)}/estimate", body=body)

    async def job(self, job: str) -> Json:
        """A job as it is now."""
        return await self.get(jobs_of(job), job)

    async def command(self, job: str, verb: Literal["cancel", "pause", "resume"]) -> Json:
        """Ask a job to stop, to wait, or to go on."""
        return await self._object("POST", _path(jobs_of(job), job, verb))

    async def result(self, job: str) -> Json:
        """What a finished job found or made."""
        return await self._object("GET", _path(jobs_of(job), job, "result"))

    async def watch(
        self, job: str, *, every: float = 0.5, patience: int = 20
    ) -> AsyncIterator[Json]:
        """The job now and at each change, until it ends or is paused.

        Args:
            every: seconds between looks.
            patience: looks in a row that may find no server before its error is raised.
        """
        last: Json | None = None
        missed = 0
        while True:
            try:
                now = await self.job(job)
            except UnreachableError:
                missed += 1
                if missed > patience:
                    raise
            else:
                missed = 0
                if now != last:
                    yield now
                if now["status"] in RESTING:
                    return
                last = now
            await self._sleep(every)

    async def events(self, job: str) -> AsyncIterator[Json]:
        """What a job has written in its history so far."""
        params: dict[str, str | int | float | bool] = {"limit": PAGE}
        while True:
            page = await self._http.json("GET", _path(jobs_of(job), job, "events"), params=params)
            for event in page["data"]:
                yield event
            if not page["has_more"] or not page["data"]:
                return
            params["after"] = page["data"][-1]["id"]

    async def event_stream(self, job: str) -> AsyncIterator[Json]:
        """What a job writes in its history, from the beginning until it ends."""
        last: str | None = None
        params = {"stream": True}
        while True:
            path = _path(jobs_of(job), job, "events")
            async for event in self._http.events(path, params=params, last_id=last):
                last = event.id or last
                yield event.json()
            if (await self.job(job))["status"] in RESTING:
                return

    async def artifacts(self, job: str) -> Sequence[Json]:
        """What a finished job made: name, size and hash of each file."""
        answer = await self._object("GET", _path(jobs_of(job), job, "artifacts"))
        found: Sequence[Json] = answer["data"]
        return found

    async def download(self, job: str, artifact: str, target: Path) -> int:
        """One artifact into a file; its size in bytes."""
        return await self._http.download(_path(jobs_of(job), job, "artifacts", artifact), target)

    async def download_all(self, job: str, folder: Path) -> AsyncIterator[tuple[Path, int]]:
        """Every artifact into a folder: its path and size, one after the other."""
        for artifact in await self.artifacts(job):
            target = _below(folder, artifact["name"])
            target.parent.mkdir(parents=True, exist_ok=True)
            yield target, await self.download(job, artifact["name"], target)

    # What jobs are made of

    async def register_expert(
        self, folder: Path, *, name: str | None = None, base: str | None = None
    ) -> Json:
        """An adapter in a folder that the server can read."""
        return await self.create("experts", _given(path=str(folder), name=name, base=base))

    async def upload_expert(
        self, folder: Path, *, name: str | None = None, base: str | None = None
    ) -> Json:
        """An adapter from a folder of this machine."""
        parts = [
            Part("config", folder / "adapter_config.json"),
            Part("weights", folder / "adapter_model.safetensors"),
        ]
        fields = _given(name=name, base=base)
        answer: Json = await self._http.upload("/v1/experts", parts, fields=fields)
        return answer

    async def check_expert(self, id_or_name: str) -> Json:
        """Probe an API expert again; the expert with what was found."""
        return await self._object("POST", _path("experts", id_or_name, "check"))

    async def register_dataset(self, file: Path, *, name: str | None = None) -> Json:
        """A dataset in a file that the server can read."""
        return await self.create("datasets", _given(path=str(file), name=name))

    async def upload_dataset(self, file: Path, *, name: str | None = None) -> Json:
        """A dataset from a file of this machine."""
        answer: Json = await self._http.upload(
            "/v1/datasets", [Part("file", file)], fields=_given(name=name)
        )
        return answer

    # Forests

    async def update_forest(self, forest: str, **fields: Any) -> Json:
        """Change how the ELMs of a forest speak together, or its metadata."""
        return await self._object("PATCH", _path("forests", forest), body=fields)

    async def elms(self, forest: str, *, limit: int | None = None) -> AsyncIterator[Json]:
        """The ELMs of a forest, in order."""
        async for elm in self._pages(_path("forests", forest, "elms"), {}, limit, PAGE):
            yield elm

    async def add_elm(
        self, forest: str, body: Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Json:
        """Add a checkpoint that is there already, or the seed, as an ELM."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else None
        path = _path("forests", forest, "elms")
        return await self._object("POST", path, body=dict(body), headers=headers)

    async def remove_elm(self, forest: str, elm: str) -> Json:
        """Take an ELM out of its forest."""
        return await self._object("DELETE", _path("forests", forest, "elms", elm))

    async def export_forest(self, forest: str, target: Path) -> int:
        """A whole forest into one zip file; its size in bytes."""
        return await self._http.download(_path("forests", forest, "archive.zip"), target)

    # The service

    async def health(self) -> Json:
        """Whether the service's process answers."""
        return await self._object("GET", "/healthz")

    async def ready(self) -> bool:
        """Whether the service is there and can take work."""
        try:
            await self._http.json("GET", "/readyz")
        except (UnreachableError, StatusError):
            return False
        return True

    async def _pages(
        self, path: str, filters: dict[str, str], limit: int | None, page: int
    ) -> AsyncIterator[Json]:
        params: dict[str, str | int | float | bool] = {**filters}
        seen = 0
        while limit is None or seen < limit:
            params["limit"] = page if limit is None else min(page, limit - seen)
            found = await self._http.json("GET", path, params=params)
            for resource in found["data"]:
                yield resource
            seen += len(found["data"])
            if not found["has_more"] or not found["data"]:
                return
            params["after"] = found["data"][-1]["id"]

    async def _object(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        answer: Json = await self._http.json(
            method, path, params=params, body=body, headers=headers
        )
        return answer


def _path(collection: str, *parts: str) -> str:
    return "/".join(["/v1", collection, *(quote(part, safe="") for part in parts)])


def jobs_of(job: str) -> Jobs:
    """The collection that a job is in, by its id."""
    return "forest_jobs" if job.startswith(f"{FOREST_JOB}_") else "merge_jobs"


def _asked(body: Json) -> Jobs:
    """The collection that a job goes to, by its spec."""
    return "forest_jobs" if "type" in body else "merge_jobs"


def _body(spec: JobSpec | Mapping[str, Any]) -> Json:
    if isinstance(spec, MergeJobSpec | ForestJobSpec):
        return spec.model_dump(mode="json", exclude_unset=True)
    return dict(spec)


def _given(**fields: str | None) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value is not None}


def _below(folder: Path, name: str) -> Path:
    """Where a file of a server's naming goes; never outside the folder."""
    target = folder / name
    if not target.resolve().is_relative_to(folder.resolve()):
        raise BadAnswerError(f"artifact {name!r} would be written outside {folder}")
    return target
