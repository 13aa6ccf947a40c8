from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import IntegrityError

from evomerge import migrations
from evomerge.app.db.engine import Database, SyncDatabase, epoch, sync_url
from evomerge.app.db.models import Event, Pool


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    await database.dispose()


def pool(name: str) -> dict[str, object]:
    return {"id": f"pool_{name}", "name": name, "base": "b", "meta": {}, "created_at": epoch()}


async def count_pools(database: Database) -> int:
    async with database.read() as session:
        return await session.scalar(select(func.count()).select_from(Pool)) or 0


async def test_the_clock_is_the_epoch_and_runs_within_a_transaction(database: Database) -> None:
    async with database.read() as session:
        first = await session.scalar(select(epoch()))
        await session.execute(select(func.count()).select_from(Pool))
        while (second := await session.scalar(select(epoch()))) == first:
            pass
    assert first is not None
    assert second is not None
    assert second > first
    assert abs(first - time.time()) < 5


async def test_a_write_is_committed_at_the_end_of_its_block(database: Database) -> None:
    async with database.write() as session:
        await session.execute(insert(Pool).values(**pool("a")))
    assert await count_pools(database) == 1


async def test_an_error_takes_a_write_back(database: Database) -> None:
    async def write() -> None:
        async with database.write() as session:
            await session.execute(insert(Pool).values(**pool("a")))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await write()
    assert await count_pools(database) == 0


async def test_foreign_keys_hold(database: Database) -> None:
    event = {"job_id": "mj_none", "created_at": 0.0, "level": "info", "type": "message"}
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            await session.execute(insert(Event).values(**event, message="", data={}))


async def test_nan_never_becomes_json(database: Database) -> None:
    with pytest.raises(Exception, match="not JSON compliant"):
        async with database.write() as session:
            await session.execute(
                insert(Pool).values(**{**pool("a"), "meta": {"loss": float("nan")}})
            )


async def test_writers_that_read_first_do_not_undo_each_other(database: Database) -> None:
    async with database.write() as session:
        await session.execute(insert(Pool).values(**{**pool("a"), "meta": {"n": 0}}))

    async def add_one() -> None:
        async with database.write() as session:
            row = await session.scalar(select(Pool).with_for_update())
            assert row is not None
            row.meta = {"n": row.meta["n"] + 1}  # type: ignore[dict-item,operator]

    await asyncio.gather(*(add_one() for _ in range(20)))
    async with database.read() as session:
        row = await session.scalar(select(Pool))
    assert row is not None
    assert row.meta == {"n": 20}


async def test_readers_go_on_while_a_writer_writes(database: Database) -> None:
    async with database.write() as session:
        await session.execute(insert(Pool).values(**pool("a")))
        assert await count_pools(database) == 0


async def test_sqlite_keeps_commits_through_a_power_cut(tmp_path: object) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/x.db")
    async with database.read() as session:
        assert await session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert await session.scalar(text("PRAGMA synchronous")) == 2
        assert await session.scalar(text("PRAGMA foreign_keys")) == 1
    await database.dispose()


def test_the_synchronous_driver_reaches_the_same_database() -> None:
    assert sync_url("sqlite+aiosqlite:///x.db").render_as_string() == "sqlite+pysqlite:///x.db"
    url = "postgresql+psycopg://u:p@h/d"
    assert sync_url(url).render_as_string(hide_password=False) == url


def test_a_synchronous_write_is_committed(database_url: str) -> None:
    database = SyncDatabase(database_url)
    with database.write() as connection:
        connection.execute(insert(Pool).values(**pool("a")))
    with database.write() as connection:
        assert connection.scalar(select(func.count()).select_from(Pool)) == 1
    database.dispose()


def test_require_head_names_the_remedy(empty_url: str) -> None:
    with pytest.raises(migrations.SchemaError, match="evomerge migrate"):
        migrations.require_head(empty_url)
    migrations.upgrade(empty_url)
    migrations.require_head(empty_url)
