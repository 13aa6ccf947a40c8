"""The HTTP service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Security
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline

from evomerge.app.api import (
    completions,
    datasets,
    errors,
    experts,
    forest_elms,
    forest_jobs,
    forests,
    health,
    merge_jobs,
    models,
    pools,
    sessions,
    tokenize,
)
from evomerge.app.api.middleware import ApiKeys, BodyLimit
from evomerge.app.api.responses import ALWAYS
from evomerge.app.connections import connectors
from evomerge.app.db.engine import Database
from evomerge.app.services.bases import Bases
from evomerge.app.services.context import Context
from evomerge.app.services.inspection import Inspection
from evomerge.app.services.leftovers import kept_swept
from evomerge.app.serving.registry import Models
from evomerge.app.sessions.engine import Engine
from evomerge.app.sessions.presets import read_presets
from evomerge.app.sessions.service import Sessions
from evomerge.app.settings import Settings
from evomerge.version import __version__

_DESCRIPTION = "Merge language models: a pool, a dataset and a budget in, one merged model out."

_RESOURCES = (
    experts,
    pools,
    datasets,
    forests,
    forest_elms,
    forest_jobs,
    merge_jobs,
    models,
    completions,
    tokenize,
    sessions,
)
# Tells OpenAPI of the keys; `ApiKeys` asks for them.
_KEY = HTTPBearer(auto_error=False, description="Asked for where the service has API keys.")


def create_app(settings: Settings) -> FastAPI:
    """The service as an ASGI application.

    Its database is connected when it starts up and let go when it shuts down; the schema must be
    there already (`evomerge migrate`), and /readyz tells whether it is.

    Raises:
        PresetError: the settings share what is no merge job.
    """
    presets = read_presets(settings.shared)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database = Database(settings.url)
        bases = Bases(settings.bases)
        async with connectors(settings) as ask:
            app.state.context = Context(settings, database, bases, Inspection(bases), ask)
            app.state.sessions = Sessions(app.state.context, presets, Engine(settings))
            try:
                async with (
                    kept_swept(app.state.context),
                    Models(app.state.context) as app.state.models,
                ):
                    yield
            finally:
                await database.dispose()

    app = FastAPIOffline(
        title="Evo-Merging",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        # /docs and all that it loads come from here: a machine without a network shows it too.
        static_url="/docs/assets",
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.include_router(health.router)
    app.include_router(sessions.protocol_health)
    for resource in _RESOURCES:
        app.include_router(resource.router, responses=ALWAYS, dependencies=[Security(_KEY)])
    errors.install(app)
    app.add_middleware(
        BodyLimit,
        max_body_bytes=settings.max_body_bytes,
        max_upload_bytes=settings.max_upload_bytes,
    )
    app.add_middleware(ApiKeys, keys=settings.api_keys, named=settings.named_keys)
    return app
