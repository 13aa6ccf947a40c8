"""A service that serves tiny merges and experts, once for all tests of one kind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.support.databases import sqlite_url
from tests.support.served import World, make_world, running

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="session")
def world(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    shutil.copy(sqlite_template, folder)
    return make_world(
        folder,
        sqlite_url(folder),
        chat_template=TEMPLATE,
        serve_experts=True,
        api_keys=["sk-right"],
    )


@pytest.fixture(scope="session")
def url(world: World) -> Iterator[str]:
    with running(world.settings) as url:
        yield url


@pytest.fixture(scope="module")
def second(url: str, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Another service, not running yet, that may ask the experts of the first one."""
    folder = tmp_path_factory.mktemp("second")
    shutil.copy(sqlite_template, folder)
    (folder / "key").write_text("sk-right")
    return make_world(
        folder,
        sqlite_url(folder),
        allowed_hosts=["127.0.0.1:*"],
        allowed_networks=["127.0.0.0/8"],
        credentials={"first": {"hosts": ["127.0.0.1:*"], "file": str(folder / "key")}},
        endpoint_limits={"*": {"attempts": 1}},
    )


@pytest.fixture
async def http(url: str) -> Iterator[httpx.AsyncClient]:
    headers = {"Authorization": "Bearer sk-right"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        yield client
