"""Databases to test on: a SQLite file, and a Postgres database of the test's own."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from evomerge import migrations

POSTGRES = "EVOMERGE_TEST_POSTGRES"


@contextmanager
def postgres_database() -> Iterator[str]:
    """The URL of a new, empty Postgres database, dropped at the end.

    Skips the test where no server is named in the environment.
    """
    server = os.environ.get(POSTGRES)
    if not server:
        pytest.skip(f"{POSTGRES} names no Postgres server")
    url = make_url(server)
    name = f"evomerge_{secrets.token_hex(6)}"
    admin = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def sqlite_database(folder: Path) -> Iterator[str]:
    """The URL of a SQLite file that does not exist yet."""
    yield f"sqlite+aiosqlite:///{folder / 'evomerge.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of either kind."""
    kind = sqlite_database(tmp_path) if request.param == "sqlite" else postgres_database()
    with kind as url:
        yield url


@pytest.fixture
def database_url(empty_url: str) -> str:
    """A migrated database of either kind."""
    migrations.upgrade(empty_url)
    return empty_url
