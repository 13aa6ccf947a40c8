"""A tiny forest: ELMs of one tokenizer, each with its own weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.forests import make_forest

from evomerge.connectors.local.base_model import BaseModel, load_base


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_forest(tmp_path_factory.mktemp("forest"))


@pytest.fixture(scope="session")
def elms(folders: dict[str, Path]) -> list[BaseModel]:
    return [load_base(folder, name=name, threads=1) for name, folder in folders.items()]
