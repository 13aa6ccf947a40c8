"""The service about itself."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from evomerge.app.schemas.base import Resource


class Health(Resource):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"


class Readiness(Resource):
    """The service can take work: its database is there, at the revision that it needs."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "revision": "0001"}]}
    )

    status: Literal["ready"] = "ready"
    revision: str


class Root(Resource):
    """Where to go from here."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Evo-Merging",
                    "version": "0.1.0",
                    "docs": "/docs",
                    "openapi": "/openapi.json",
                }
            ]
        }
    )

    name: str
    version: str
    docs: str
    openapi: str
