"""A client of the HTTP API, for the command line, the demo and your own programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.connectors.http import (
    HttpClient,
    Params,
    Timeouts,
    Transport,
    UnreachableError,
)

Json = dict[str, Any]
Collection = Literal["merge_jobs", "experts", "pools", "datasets"]
Sleep = Callable[[float], Awaitable[None]]

TERMINAL = frozenset({"succeeded", "failed", "cancelled"})
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
        self, collection: Collection, *, limit: int | None = None, **filters: str
    ) -> AsyncIterator[Json]:
        """The resources of a collection, page after page, at most `limit` of them."""
        params: dict[str, str | int | float | bool] = dict(filters)
        seen = 0
        while limit is None or seen < limit:
            params["limit"] = PAGE if limit is None else min(PAGE, limit - seen)
            page = await self._http.json("GET", f"/v1/{collection}", params=params)
            for resource in page["data"]:
                yield resource
            seen += len(page["data"])
            if not page["has_more"] or not page["data"]:
                return
            params["after"] = page["data"][-1]["id"]

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
        self, spec: MergeJobSpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Json:
        """Queue a merge job."""
        return await self.create("merge_jobs", _body(spec), idempotency_key=idempotency_key)

    async def command(self, job: str, verb: Literal["cancel", "pause", "resume"]) -> Json:
        """Ask a job to stop, to wait, or to go on."""
        return await self._object("POST", _path("merge_jobs", job, verb))

    async def result(self, job: str) -> Json:
        """What a finished job found, and its proof."""
        return await self._object("GET", _path("merge_jobs", job, "result"))

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
                now = await self.get("merge_jobs", job)
            except UnreachableError:
                missed += 1
                if missed > patience:
                    raise
            else:
                missed = 0
                if now != last:
                    yield now
                if now["status"] in TERMINAL or now["status"] == "paused":
                    return
                last = now
            await self._sleep(every)

    async def events(self, job: str) -> AsyncIterator[Json]:
        """What a job has written in its history so far."""
        params: dict[str, str | int | float | bool] = {"limit": PAGE}
        while True:
            page = await self._http.json("GET", _path("merge_jobs", job, "events"), params=params)
            for event in page["data"]:
                yield event
            if not page["has_more"] or not page["data"]:
                return
            params["after"] = page["data"][-1]["id"]

    async def download(self, job: str, artifact: str, target: Path) -> int:
        """One artifact into a file; its size in bytes."""
        return await self._http.download(_path("merge_jobs", job, "artifacts", artifact), target)

    # The service

    async def ready(self) -> bool:
        """Whether the service can take work."""
        try:
            await self._http.json("GET", "/readyz")
        except UnreachableError:
            return False
        return True

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


def _body(spec: MergeJobSpec | Mapping[str, Any]) -> Json:
    if isinstance(spec, MergeJobSpec):
        return spec.model_dump(mode="json", exclude_unset=True)
    return dict(spec)
