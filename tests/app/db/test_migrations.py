from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import SQLAlchemyError

from evomerge import migrations
from evomerge.app.db.engine import SyncDatabase


def tables(url: str) -> set[str]:
    database = SyncDatabase(url)
    try:
        return set(sa.inspect(database.engine).get_table_names())
    finally:
        database.dispose()


def test_models_and_migrations_agree(database_url: str) -> None:
    migrations.check(database_url)


def test_upgrade_twice_changes_nothing(database_url: str) -> None:
    before = tables(database_url)
    migrations.upgrade(database_url)
    assert tables(database_url) == before


def test_several_processes_may_upgrade_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrations.upgrade, [empty_url] * 4))
    migrations.check(empty_url)


def test_a_failing_step_leaves_the_database_as_it_was(
    empty_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create = op.create_table

    def fail_late(name: str, *columns: object, **kw: object) -> object:
        if name == "jobs":
            return op.execute("SELECT * FROM there_is_no_such_table")
        return create(name, *columns, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(op, "create_table", fail_late)
    with pytest.raises(SQLAlchemyError, match="there_is_no_such_table"):
        migrations.upgrade(empty_url)
    assert tables(empty_url) == set()


def test_a_sqlite_folder_is_made(tmp_path: object) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/not/yet/x.db"
    migrations.upgrade(url)
    migrations.require_head(url)


def test_what_was_there_before_api_experts_is_there_afterwards(empty_url: str) -> None:
    migrations.upgrade(empty_url, "0001")
    database = SyncDatabase(empty_url)
    try:
        with database.write() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO experts VALUES "
                    "('ex_1', 'one', 'lora', 'base', '/p', 'h', '{}', '{}', 1.0)"
                )
            )
            connection.execute(sa.text("INSERT INTO pools VALUES ('p_1', 'all', 'base', '{}', 1)"))
            connection.execute(sa.text("INSERT INTO pool_members VALUES ('p_1', 0, 'ex_1')"))
        migrations.upgrade(empty_url)
        with database.write() as connection:
            members = connection.execute(sa.text("SELECT pool_id, expert_id FROM pool_members"))
            assert [tuple(row) for row in members] == [("p_1", "ex_1")]
    finally:
        database.dispose()
