"""Databases to test on: a SQLite file, and a Postgres database of the test's own.

A plugin of pytest; migrated databases are copies of one that is migrated once.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from evomerge import migrations

POSTGRES = "EVOMERGE_TEST_POSTGRES"


@contextmanager
def postgres_database(template: str | None = None) -> Iterator[str]:
    """The URL of a new Postgres database, empty or a copy of another; dropped at the end.

    Skips the test where no server is named in the environment.
    """
    server = os.environ.get(POSTGRES)
    if not server:
        pytest.skip(f"{POSTGRES} names no Postgres server")
    url = make_url(server)
    name = f"evomerge_{secrets.token_hex(6)}"
    copied = f" TEMPLATE {make_url(template).database}" if template else ""
    admin = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}{copied}")
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def sqlite_url(folder: Path) -> str:
    """The URL of a SQLite file in a folder."""
    return f"sqlite+aiosqlite:///{folder / 'evomerge.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of either kind."""
    if request.param == "sqlite":
        yield sqlite_url(tmp_path)
    else:
        with postgres_database() as url:
            yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file that nobody has open."""
    folder = tmp_path_factory.mktemp("template")
    migrations.upgrade(sqlite_url(folder))
    return folder / "evomerge.db"


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    """A migrated Postgres database that nobody is connected to."""
    with postgres_database() as url:
        migrations.upgrade(url)
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database of either kind."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path)
        yield sqlite_url(tmp_path)
    else:
        with postgres_database(request.getfixturevalue("postgres_template")) as url:
            yield url
