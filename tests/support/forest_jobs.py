"""Jobs over a tiny forest, from the API to their end: a service, corpora, and workers over both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tests.app.api.client import Api, Json, created
from tests.support import jobs
from tests.support.corpora import make_corpus
from tests.support.worker_processes import WorkerProcess

from evomerge.app.db.engine import Database
from evomerge.app.main import create_app
from evomerge.app.services.context import Context
from evomerge.app.settings import Settings
from evomerge.app.worker.process import work

PACE: Json = {"lease_seconds": 3.0, "beat_seconds": 0.02, "poll_seconds": 0.02}
# Each process imports torch first, on a machine that may be busy.
PATIENCE = 300.0
ARCHITECTURE: Json = {
    "vocabulary": 280,
    "hidden": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "intermediate": 24,
    "context": 32,
}
BATCH = 4 * 16
RECIPE: Json = {
    "tokens": 12 * BATCH,
    "block_tokens": 16,
    "batch_blocks": 4,
    "learning_rate": 3e-3,
    "checkpoint_steps": 5,
    "dev_share": 0.2,
    "test_share": 0.2,
    "seed": 1,
}
SHARES: Json = {"dev_share": 0.2, "test_share": 0.2}


def recipe(**changes: Any) -> Json:
    """A recipe of a dozen steps."""
    return {**RECIPE, **changes}


@dataclass(frozen=True)
class Plantation:
    """A service with corpora below its root."""

    api: Api
    context: Context
    root: Path

    @property
    def settings(self) -> Settings:
        return self.context.settings

    @property
    def database(self) -> Database:
        return self.context.database

    def corpus(self, domain: str, count: int = 40) -> Json:
        """A domain, its documents written."""
        return {"domain": domain, "path": str(make_corpus(self.root, domain, count).path)}

    def seed_spec(self, *domains: str, **changes: Any) -> Json:
        return {
            "type": "train_seed",
            "corpora": [self.corpus(domain) for domain in domains],
            "architecture": ARCHITECTURE,
            "recipe": RECIPE,
            "forest": "grove",
            **changes,
        }

    def branch_spec(self, domain: str, **changes: Any) -> Json:
        corpus = self.corpus(domain)
        return {
            "type": "branch_train",
            "forest": "grove",
            "corpus": corpus,
            "recipe": RECIPE,
            **changes,
        }

    def evaluate_spec(self, *domains: str, **changes: Any) -> Json:
        corpora = [self.corpus(domain) for domain in domains]
        return {
            "type": "evaluate",
            "forest": "grove",
            "corpora": corpora,
            "shares": SHARES,
            **changes,
        }

    async def create(self, spec: Json) -> str:
        """Queue a job; its id."""
        return str(created(await self.api.post("/v1/forest_jobs", spec))["id"])

    async def job(self, job_id: str) -> Json:
        return dict((await self.api.get(f"/v1/forest_jobs/{job_id}")).json())

    async def result(self, job_id: str) -> Json:
        response = await self.api.get(f"/v1/forest_jobs/{job_id}/result")
        assert response.status_code == 200, (response.text, (await self.job(job_id))["error"])
        return dict(response.json())

    async def events(self, job_id: str) -> list[Json]:
        response = await self.api.get(f"/v1/forest_jobs/{job_id}/events", limit=100)
        return list(response.json()["data"])

    async def forest(self) -> Json:
        return dict((await self.api.get("/v1/forests/grove")).json())

    def elm_folder(self, result: Json) -> Path:
        """Where the checkpoint of a training is kept."""
        return (self.settings.data_dir / "elms" / result["checkpoint"]["content_hash"]).absolute()

    def scratch(self) -> list[str]:
        """Names of what jobs keep meanwhile."""
        home = self.settings.data_dir / "scratch"
        return sorted(path.name for path in home.iterdir()) if home.is_dir() else []

    @asynccontextmanager
    async def worker(self, **changes: Any) -> AsyncIterator[asyncio.Task[None]]:
        """A worker in this process while the block runs."""
        stopping = asyncio.Event()
        task = asyncio.create_task(work(self.settings.model_copy(update=changes), stopping))
        try:
            yield task
        finally:
            stopping.set()
            await task

    async def finish(self, *job_ids: str) -> list[Json]:
        """Let a worker in this process run jobs to their end; their results."""
        async with self.worker() as task:
            for job_id in job_ids:
                await self.until(job_id, _ended, task)
        return [await self.result(job_id) for job_id in job_ids]

    async def run(self, spec: Json) -> Json:
        """Create a job and let it run to its result."""
        return (await self.finish(await self.create(spec)))[0]

    async def fails(self, spec: Json) -> Json:
        """Create a job and let it run to its failure; the error."""
        job_id = await self.create(spec)
        async with self.worker() as task:
            await self.until(job_id, _ended, task)
        job = await self.job(job_id)
        assert job["status"] == "failed", job
        return dict(job["error"])

    async def until(
        self, job_id: str, so: Callable[[Any], bool], task: asyncio.Task[None] | None = None
    ) -> None:
        """Wait until a job's row is so."""

        async def is_so() -> bool:
            return so(await jobs.get_job(self.database, job_id))

        await jobs.until(is_so, task, PATIENCE)

    def process(self) -> WorkerProcess:
        """A worker process of its own."""
        settings = self.settings
        environment = {
            "EVOMERGE_DATA_DIR": str(settings.data_dir),
            "EVOMERGE_DATABASE_URL": settings.url,
            "EVOMERGE_DEVICE": "cpu",
            "EVOMERGE_THREADS": "1",
            "EVOMERGE_MAX_ATTEMPTS": "20",
            **{f"EVOMERGE_{name.upper()}": str(value) for name, value in PACE.items()},
        }
        return WorkerProcess(environment)


def _ended(row: Any) -> bool:
    return row.finished_at is not None


@asynccontextmanager
async def plantation(folder: Path, url: str, *, device: str = "cpu") -> AsyncIterator[Plantation]:
    """Start a service over a migrated database."""
    root = folder / "root"
    root.mkdir()
    settings = Settings(
        data_dir=folder / "data",
        database_url=url,
        roots=[root],
        device=device,
        threads=1,
        heartbeat_seconds=0.05,
        **PACE,
    )
    app = create_app(settings)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        yield Plantation(Api(http, root, root), app.state.context, root)
