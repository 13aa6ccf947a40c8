"""A tiny forest: ELMs of one tokenizer, each with its own weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.tiny import make_base

from evomerge.connectors.local.base_model import BaseModel, load_base

NAMES = ("ada", "bob", "cyd")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("forest")
    return {name: make_base(root / name, seed=n + 5) for n, name in enumerate(NAMES)}


@pytest.fixture(scope="session")
def elms(folders: dict[str, Path]) -> list[BaseModel]:
    return [load_base(folder, threads=1) for folder in folders.values()]
