"""One tiny base and its experts for the tests of the local connector."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.tiny import make_adapter, make_base

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.evaluation.example import Example


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("bases") / "tiny", seed=3)


@pytest.fixture(scope="session")
def base(base_folder: Path) -> BaseModel:
    return load_base(base_folder, threads=1)


@pytest.fixture(scope="session")
def experts(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three experts of rank 4, all modules."""
    folder = tmp_path_factory.mktemp("experts")
    return [make_adapter(folder / f"e{n}", base_folder, seed=n) for n in range(3)]


@pytest.fixture(scope="session")
def examples() -> list[Example]:
    """Rows of different lengths, in no order of length."""
    prompts = [
        "Berlin is in",
        "a",
        "The capital of the largest country of Europe is",
        "2+2=",
        "x" * 90,
    ]
    answers = ["Germany", "b c d e f g", "Moscow", "4", "y"]
    pairs = zip(prompts, answers, strict=True)
    return [Example(p, a, row=n + 1) for n, (p, a) in enumerate(pairs)]
