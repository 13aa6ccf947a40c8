"""`evomerge serve` as a real process, with its worker."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.app.cli.conftest import Run
from tests.support.processes import Running, evomerge

from evomerge.app.client import EvoMergeClient
from evomerge.connectors.http import StatusError


@asynccontextmanager
async def ready(running: Running, key: str | None = None) -> AsyncIterator[EvoMergeClient]:
    """A client of a server that has just been started, once it is ready."""
    url = (await running.printed(r"is at (http://\S+) "))[1]
    async with EvoMergeClient(url, key) as client:
        # The port is open before anything runs behind it: this waits for the answer.
        assert await client.ready()
        yield client


async def worker_of(running: Running) -> int:
    return int((await running.logged(r"worker started, process (\d+)"))[1])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_killed_worker_is_started_again_and_one_signal_ends_both(tmp_path: Path) -> None:
    arguments = ("serve", "--port", "0", "--data-dir", str(tmp_path / "data"))
    async with evomerge(*arguments, environment={}) as running:
        async with ready(running) as client:
            assert (await client.health())["status"] == "ok"
        first = await worker_of(running)
        await running.logged("worker .* begins")
        os.kill(first, signal.SIGKILL)
        await running.logged(f"worker {first} ended with code -9")
        second = await worker_of(running)
        await running.logged("worker .* begins")
        assert second != first
        running.send(signal.SIGTERM)
        assert "Traceback" not in await running.all_ended()
        assert running.process.returncode == 0
        assert not alive(second)
    assert (tmp_path / "data" / "evomerge.db").exists()


async def test_a_worker_does_not_outlive_a_server_that_is_killed(tmp_path: Path) -> None:
    arguments = ("serve", "--port", "0", "--data-dir", str(tmp_path))
    async with evomerge(*arguments, environment={}) as running:
        await running.logged("worker .* begins")
        running.send(signal.SIGKILL)
        # Standard error ends when the last process that holds it has ended: the worker.
        assert re.search("worker .* ends", await running.all_ended())


async def test_keys_are_asked_for_and_stand_in_no_log(tmp_path: Path) -> None:
    arguments = ("serve", "--port", "0", "--no-worker", "--data-dir", str(tmp_path))
    async with evomerge(*arguments, environment={"EVOMERGE_API_KEYS": '["sesame"]'}) as running:
        async with ready(running, "sesame") as client:
            assert [found async for found in client.list("experts")] == []
            async with EvoMergeClient(client.url, "wrong-key") as stranger:
                with pytest.raises(StatusError) as refused:
                    [found async for found in stranger.list("experts")]
        assert refused.value.status == 401
        running.send(signal.SIGTERM)
        log = await running.all_ended()
        assert "sesame" not in log
        assert "wrong-key" not in log


@pytest.fixture
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("EVOMERGE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EVOMERGE_DATA_DIR", str(tmp_path))


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "example.org"])
def test_binding_beyond_loopback_without_a_key_is_refused(run: Run, host: str) -> None:
    refused = run(None, "serve", "--host", host)
    assert refused.exit_code == 2
    assert f"host={host!r}" in refused.stderr
    assert "EVOMERGE_API_KEYS" in refused.stderr


@pytest.mark.usefixtures("no_settings")
def test_a_taken_port_is_refused_before_anything_starts(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run(None, "serve", "--port", str(port))
    assert refused.exit_code == 2
    assert f"port={port}: cannot bind" in refused.stderr


@pytest.mark.usefixtures("no_settings")
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("EVOMERGE_PORT", "http", "setting port: "),
        ("EVOMERGE_LEASE_SECONDS", "0", "setting lease_seconds: "),
        ("EVOMERGE_ROOTS", "/models", "roots"),
        ("EVOMERGE_DATABASE_URL", "nonsense", "setting database_url: "),
        ("EVOMERGE_DATABASE_URL", "mongodb://x", "setting database_url: "),
    ],
)
def test_a_wrong_setting_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    refused = run(None, "serve")
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.usefixtures("no_settings")
def test_a_database_that_is_away_exits_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv(
        "EVOMERGE_DATABASE_URL", f"postgresql+psycopg://me:sesame@127.0.0.1:{port}/test"
    )
    refused = run(None, "migrate")
    assert refused.exit_code == 3
    assert "the database cannot be used" in refused.stderr
    assert "sesame" not in refused.stderr


@pytest.mark.usefixtures("no_settings")
def test_migrating_twice_is_migrating_once(run: Run) -> None:
    first, second = run(None, "migrate"), run(None, "migrate")
    assert first.exit_code == second.exit_code == 0
    assert first.stdout == second.stdout


@pytest.mark.usefixtures("no_settings")
def test_openapi_prints_the_document(run: Run) -> None:
    assert '"openapi": "3.' in run(None, "openapi").stdout
