"""The processes of the service: the API, with a worker kept beside it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from evomerge import migrations
from evomerge.app.cli.failures import InputError, faults
from evomerge.app.cli.supervisor import Supervisor
from evomerge.app.settings import Settings

GRACE_SECONDS = 5
WORKER = (sys.executable, "-m", "evomerge.app.cli", "worker", "--end-with-parent")


def read_settings(**overrides: Any) -> Settings:
    """Settings from the environment, under the options that were given (None is not given).

    Raises:
        InputError: a variable or an option is wrong; each line names it and its value.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise InputError("\n".join(f"setting {line}" for line in faults(error))) from error
    except SettingsError as error:
        raise InputError(f"setting {error}: lists and mappings are written as JSON") from error


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_binding(settings: Settings) -> None:
    """Refuse to offer the service to a network without asking for a key.

    Raises:
        InputError: the host is beyond loopback and no key is set.
    """
    if not settings.api_keys and not is_loopback(settings.host):
        raise InputError(
            f"host={settings.host!r} is reachable from other machines: set EVOMERGE_API_KEYS "
            "to a JSON list of keys first, or bind 127.0.0.1"
        )


def migrate_if_sqlite(settings: Settings) -> None:
    """Bring an embedded database up to date; a Postgres is migrated once, by `evomerge migrate`.

    Raises:
        InputError: the database's address makes no sense.
    """
    try:
        backend = make_url(settings.url).get_backend_name()
    except ArgumentError as error:
        raise InputError(f"setting database_url: {error}") from error
    if backend == "sqlite":
        migrations.upgrade(settings.url)


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to the address, so that a taken port is known before anything starts.

    Raises:
        InputError: the address is taken or is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"host={host!r}, port={port}: cannot bind: {reason}") from error


def address(bound: socket.socket) -> str:
    """The URL at which a bound socket is reached from this machine."""
    host, port = bound.getsockname()[:2]
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


async def serve(settings: Settings, bound: socket.socket, *, worker: bool) -> None:
    """Serve the API on a bound socket, with one worker process beside it, until a signal."""
    from evomerge.app.main import create_app

    config = uvicorn.Config(
        create_app(settings), log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS
    )
    server = uvicorn.Server(config)
    stop = asyncio.Event()
    with stopped_by_signals(stop.set):
        async with asyncio.TaskGroup() as tasks:
            if worker:
                tasks.create_task(Supervisor(WORKER, worker_environment(settings)).keep(stop))
            try:
                await server.serve(sockets=[bound])
            finally:
                stop.set()
    if not server.started:
        raise InputError("the API did not start; the reason is logged above")


def worker_environment(settings: Settings) -> Mapping[str, str]:
    """This process's environment, with the settings that command-line options may have changed."""
    return {
        **os.environ,
        "EVOMERGE_DATA_DIR": str(settings.data_dir.absolute()),
        "EVOMERGE_DATABASE_URL": settings.url,
    }


@contextmanager
def stopped_by_signals(stop: Callable[[], None]):  # type: ignore[no-untyped-def]
    """Call `stop` on SIGINT and SIGTERM while the block runs in this thread's event loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
