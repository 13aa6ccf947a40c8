"""Shorthands for what most tests of the API do first."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

Json = dict[str, Any]


@dataclass
class Api:
    """A client, and what it may register.

    Attributes:
        folders: pattern of the adapters' folders.
        rows: file of a dataset.
    """

    http: httpx.AsyncClient
    folders: Path
    rows: Path
    made: dict[str, Json] = field(default_factory=dict)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(path, params=params)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.http.post(path, json=body, headers=names)

    async def pool(self, name: str = "pool") -> Json:
        """A pool of all adapters."""
        return created(await self.post("/v1/pools", {"name": name, "folders": str(self.folders)}))

    async def dataset(self, name: str = "rows") -> Json:
        """The dataset."""
        return created(await self.post("/v1/datasets", {"name": name, "path": str(self.rows)}))

    async def inputs(self) -> None:
        """Pool and dataset, made once."""
        if not self.made:
            self.made = {"pool": await self.pool(), "dataset": await self.dataset()}

    async def job(self, **changes: Any) -> Json:
        """A job over both."""
        await self.inputs()
        return created(await self.post("/v1/merge_jobs", spec(**changes)))


def spec(**changes: Any) -> Json:
    """A job's body, over what `Api` makes."""
    return {
        "pool": "pool",
        "objective": {"datasets": [{"dataset": "rows"}]},
        "method": {"name": "cma", "population": 4, "scaling": {"evaluations": 12}},
        **changes,
    }


def created(response: httpx.Response) -> Json:
    assert response.status_code == 201, response.text
    body: Json = response.json()
    return body


def error(response: httpx.Response, status: int, code: str, param: str | None = None) -> str:
    """The message of a refusal, after checking its form."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert {"message", "type", "param", "code"} <= set(body["error"])
    assert body["error"]["code"] == code, body
    assert body["error"]["param"] == param, body
    message: str = body["error"]["message"]
    return message
