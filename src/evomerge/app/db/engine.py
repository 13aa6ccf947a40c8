"""Engines and transactions, the same over SQLite and Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Float, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from evomerge.app.db import json_text

# Seconds that a writer waits for the others, and that a silent Postgres may stay silent.
BUSY_SECONDS = 30.0
CONNECT_SECONDS = 5
SILENCE_SECONDS = 10

_WRITE = "evomerge_write"
_SYNC_DRIVERS = {"sqlite+aiosqlite": "sqlite+pysqlite"}


class epoch(FunctionElement[float]):  # noqa: N801 - stands among SQL functions
    """Now by the database's clock, in seconds since 1970 as a float. Not frozen by a transaction.

    Leases are read off this clock alone, so that machines whose clocks differ still agree.
    """

    type = Float()
    inherit_cache = True


@compiles(epoch, "sqlite")
def _epoch_sqlite(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(epoch, "postgresql")
def _epoch_postgresql(element: epoch, compiler: SQLCompiler, **kw: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


class Database:
    """Asynchronous sessions over one database.

    A unit of work is one `async with`: `read()` for queries, `write()` for changes. Both open
    one transaction; `write()` commits at the end of the block and rolls back on an error. On
    SQLite a write transaction takes the write lock at its start (BEGIN IMMEDIATE), so that what
    it read is still true when it writes; readers never wait for it. Safe for concurrent tasks.
    """

    def __init__(self, url: str | URL, *, pool_size: int = 5) -> None:
        self.url = make_url(url)
        self.engine = create_async_engine(self.url, **_options(self.url, pool_size))
        _prepare(self.engine.sync_engine)
        self._read = async_sessionmaker(self.engine, expire_on_commit=False)
        self._write = async_sessionmaker(
            self.engine.execution_options(**{_WRITE: True}), expire_on_commit=False
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session for queries, on one snapshot (SQLite) or read-committed (Postgres)."""
        async with self._read() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session for changes, committed at the end of the block.

        Raises:
            sqlalchemy.exc.OperationalError: the database is away, or stayed locked.
        """
        async with self._write.begin() as session:
            yield session

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


class SyncDatabase:
    """One synchronous connection at a time, for the heartbeat's thread and for migrations."""

    def __init__(self, url: str | URL) -> None:
        self.url = sync_url(url)
        self.engine: Engine = create_engine(self.url, **_options(self.url, pool_size=1))
        _prepare(self.engine)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection in a write transaction, committed at the end of the block."""
        with self.engine.execution_options(**{_WRITE: True}).begin() as connection:
            yield connection

    def dispose(self) -> None:
        """Close the connection."""
        self.engine.dispose()


def sync_url(url: str | URL) -> URL:
    """The same database through a synchronous driver."""
    parsed = make_url(url)
    return parsed.set(drivername=_SYNC_DRIVERS.get(parsed.drivername, parsed.drivername))


def _options(url: URL, pool_size: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "json_serializer": json_text.written,
        "json_deserializer": json_text.read,
        "pool_size": pool_size,
    }
    if url.get_backend_name() == "sqlite":
        options["connect_args"] = {"timeout": BUSY_SECONDS}
    else:
        options["pool_pre_ping"] = True
        options["connect_args"] = {
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": SILENCE_SECONDS * 1000,
        }
    return options


def _prepare(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)


def _on_sqlite_connect(connection: DBAPIConnection, record: object) -> None:
    # The driver must not open transactions of its own accord: `_on_sqlite_begin` does.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_mode = WAL")
    # FULL, not NORMAL: a commit is on the disk before it is acknowledged, so that an evaluation
    # paid for survives a power cut. It costs one fsync a generation, nothing beside a forward.
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _on_sqlite_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
