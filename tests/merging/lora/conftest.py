"""A tiny base and adapters over it, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.tiny import ATTENTION, MLP, make_adapter, make_base

from evomerge.merging.lora.adapter import LoraAdapter, read_adapter


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("tiny") / "base", layers=3)


@pytest.fixture(scope="session")
def folders(base: Path) -> list[Path]:
    """Four adapters: two alike, one of another rank, one of a rank again and fewer modules."""
    pool = base.parent / "pool"
    return [
        make_adapter(pool / "a", base, seed=1),
        make_adapter(pool / "b", base, seed=2, lora_alpha=6),
        make_adapter(pool / "c", base, seed=3, rank=2, modules=MLP),
        make_adapter(pool / "d", base, seed=4, rank=6, modules=ATTENTION, use_rslora=True),
    ]


@pytest.fixture(scope="session")
def adapters(folders: list[Path]) -> list[LoraAdapter]:
    return [read_adapter(folder) for folder in folders]
