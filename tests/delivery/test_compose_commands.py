"""The very commands of the compose file's services, run against Postgres in their order."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.databases import postgres_database
from tests.support.processes import evomerge

from evomerge.app.client import EvoMergeClient

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"


def command(service: str) -> list[str]:
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]
    return list(services[service]["command"])


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    """What the compose file sets, with this test's database, folder and key."""
    with postgres_database() as url:
        yield {
            "EVOMERGE_DATABASE_URL": url,
            "EVOMERGE_DATA_DIR": str(tmp_path / "data"),
            "EVOMERGE_ROOTS": f'["{tmp_path}"]',
            "EVOMERGE_API_KEYS": '["sesame"]',
        }


def test_the_environment_is_that_of_the_compose_file(environment: Mapping[str, str]) -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    # Base models come from the shell alone.
    assert set(services["api"]["environment"]) == {*environment, "EVOMERGE_BASES"}


async def test_migrate_api_and_workers_run_as_composed(environment: Mapping[str, str]) -> None:
    async with evomerge(*command("migrate"), environment=environment) as migrating:
        await migrating.all_ended()
        assert migrating.process.returncode == 0
    # A free port on loopback, where the container has its own network.
    api = command("api")
    api[api.index("--host") + 1] = "127.0.0.1"
    api[api.index("--port") + 1] = "0"
    async with AsyncExitStack() as stack:
        serving = await stack.enter_async_context(evomerge(*api, environment=environment))
        workers = [
            await stack.enter_async_context(evomerge(*command("worker"), environment=environment))
            for _ in range(2)
        ]
        url = (await serving.printed(r"is at (http://\S+) "))[1]
        async with EvoMergeClient(url, "sesame") as client:
            assert await client.ready()
            assert [found async for found in client.list("merge_jobs")] == []
        for worker in workers:
            await worker.logged("worker .* begins")
        for running in (serving, *workers):
            running.send(signal.SIGTERM)
            log = await running.all_ended()
            assert running.process.returncode == 0, log
            assert "Traceback" not in log


async def test_a_worker_refuses_a_database_that_was_not_migrated(
    environment: Mapping[str, str],
) -> None:
    async with evomerge(*command("worker"), environment=environment) as worker:
        log = await worker.all_ended()
        assert worker.process.returncode == 3
        assert "evomerge migrate" in log
