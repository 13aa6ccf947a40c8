"""Whether the service is there, and whether it can work."""

from __future__ import annotations

from fastapi import APIRouter

from evomerge import migrations
from evomerge.app.api.dependencies import ContextDep
from evomerge.app.errors import UnavailableError
from evomerge.app.schemas.service import Health, Readiness, Root
from evomerge.version import __version__

router = APIRouter(tags=["service"])


@router.get("/", operation_id="get_root")
async def get_root() -> Root:
    """Where to go from here."""
    return Root(name="Evo-Merging", version=__version__, docs="/docs", openapi="/openapi.json")


@router.get("/healthz", operation_id="get_health")
async def get_health() -> Health:
    """Whether the process answers."""
    return Health()


@router.get("/readyz", operation_id="get_readiness")
async def get_readiness(context: ContextDep) -> Readiness:
    """Whether the database can be reached and is migrated; 503 while it is not."""
    async with context.database.read() as session:
        connection = await session.connection()
        revision = await connection.run_sync(migrations.current)
    needed = migrations.head()
    if revision is None or revision != needed:
        raise UnavailableError(
            f"the database is at revision {revision}, this version needs {needed}: "
            "run evomerge migrate",
            code="not_migrated",
        )
    return Readiness(revision=revision)
