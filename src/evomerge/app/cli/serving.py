"""The processes of the service: the API, with a worker kept beside it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import uvicorn
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from evomerge import migrations
from evomerge.app.cli.failures import InputError, ServiceError, faults
from evomerge.app.cli.supervisor import Supervisor
from evomerge.app.settings import Settings

DRIVERS = ("sqlite+aiosqlite", "postgresql+psycopg")
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
    if not (settings.api_keys or settings.named_keys) and not is_loopback(settings.host):
        raise InputError(
            f"host={settings.host!r} is reachable from other machines: set EVOMERGE_API_KEYS "
            "to a JSON list of keys first, or bind 127.0.0.1"
        )


def check_database(settings: Settings) -> str:
    """The kind of the database: sqlite or postgresql.

    Raises:
        InputError: its address makes no sense, or its driver is not installed.
    """
    try:
        url = make_url(settings.url)
    except ArgumentError as error:
        raise InputError(f"setting database_url: {error}") from error
    if url.drivername not in DRIVERS:
        raise InputError(
            f"setting database_url: {url.drivername!r} must be one of {', '.join(DRIVERS)}"
        )
    module = url.get_driver_name()
    if find_spec(module) is None:
        raise InputError(
            f"setting database_url: {module} is not installed: pip install 'evo-merging[postgres]'"
        )
    return url.get_backend_name()


def migrate(settings: Settings) -> str | None:
    """Bring the database to this version's schema; the revision that it is at then.

    Raises:
        InputError: as `check_database`.
        ServiceError: the database is away, or refuses.
    """
    check_database(settings)
    with database_errors():
        migrations.upgrade(settings.url)
    return migrations.head()


def migrate_if_sqlite(settings: Settings) -> None:
    """Migrate an embedded database; a Postgres is migrated once, by `evomerge migrate`.

    Raises:
        InputError, ServiceError: as `migrate`.
    """
    if check_database(settings) == "sqlite":
        migrate(settings)


@contextmanager
def database_errors() -> Iterator[None]:
    """Turn what a database raises at the start into one clear line.

    Raises:
        ServiceError: it is away, refuses, or has another version's schema.
    """
    try:
        yield
    except migrations.SchemaError as error:
        raise ServiceError(str(error)) from error
    except DBAPIError as error:
        reason = str(error.orig).strip().partition("\n")[0]
        raise ServiceError(f"the database cannot be used: {reason}") from error


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
        raise ServiceError("the API did not start; the reason is logged above")


async def work(settings: Settings, *, end_with_parent: bool) -> None:
    """Run jobs until a signal, or until standard input ends when that is asked for.

    Raises:
        ServiceError: the database cannot be used.
    """
    from evomerge.app.worker import process

    stop = asyncio.Event()
    with stopped_by_signals(stop.set), database_errors():
        if end_with_parent:
            on_end_of_input(stop.set)
        await process.work(settings, stop)


def worker_environment(settings: Settings) -> Mapping[str, str]:
    """This process's environment, with the settings that command-line options may have changed."""
    return {
        **os.environ,
        "EVOMERGE_DATA_DIR": str(settings.data_dir.absolute()),
        "EVOMERGE_DATABASE_URL": settings.url,
    }


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` on SIGINT and SIGTERM while the block runs in this thread's event loop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def on_end_of_input(then: Callable[[], None]) -> None:
    """Call `then` once, when standard input, a pipe that nobody writes to, is closed."""
    loop = asyncio.get_running_loop()
    source = sys.stdin.fileno()

    def ended() -> None:
        loop.remove_reader(source)
        then()

    loop.add_reader(source, ended)
