from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.tiny import make_adapter, make_base

from evomerge.merging.lora.adapter import read_adapter
from evomerge.merging.lora.artifact import merged_adapter
from evomerge.merging.lora.padding import padded
from evomerge.merging.lora.pool import LoraPool, stack_folders
from evomerge.merging.lora.space import LoraSpace
from evomerge.merging.lora.writer import AdapterWriter
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

RANKS = (1, 8, 16)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> LoraPool:
    folder = tmp_path_factory.mktemp("pool")
    weights = make_base(folder / "base")
    return stack_folders([make_adapter(folder / f"e{n}", weights, seed=n) for n in range(3)])


def writer(pool: LoraPool, rank: int = 16, composition: str = "exact") -> AdapterWriter:
    space = LoraSpace(pool, composition)  # type: ignore[arg-type]
    return AdapterWriter(space, "tiny", torch.float32, rank=rank, ranks=RANKS)


@pytest.mark.parametrize(
    ("candidate", "rank"), [(base(3), 1), (one_hot(1, 3), 8), (uniform(3), 16)]
)
def test_padding_reaches_a_rank_that_is_taken_and_changes_nothing(
    pool: LoraPool, candidate: Candidate, rank: int
) -> None:
    plain = merged_adapter(LoraSpace(pool, "exact"), candidate, torch.float32)
    found = padded(plain, RANKS)
    assert {a.shape[0] for a, _ in found.modules.values()} == {rank}
    for module in plain.modules:
        torch.testing.assert_close(
            found.population().update(module, 0), plain.population().update(module, 0)
        )


def test_the_folder_has_one_rank_for_all_modules(pool: LoraPool, tmp_path: Path) -> None:
    writer(pool).write(uniform(3), tmp_path / "a")
    config = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["rank_pattern"]) == (16, 16, {})
    assert read_adapter(tmp_path / "a")


def test_above_the_limit_a_candidate_is_compressed(pool: LoraPool) -> None:
    assert writer(pool, rank=8).adapter(uniform(3)).rank == 8


def test_a_limit_that_the_server_does_not_take_is_refused(pool: LoraPool) -> None:
    with pytest.raises(ValueError, match="rank=17"):
        writer(pool, rank=17)


def test_names_are_equal_where_adapters_are(pool: LoraPool) -> None:
    one = writer(pool)
    assert one.name(uniform(3)) == writer(pool).name(uniform(3))
    others = [
        one.name(base(3)),
        one.name(Candidate(np.full((1, 3), 0.5), uniform(3).beta)),
        writer(pool, rank=8).name(uniform(3)),
        writer(pool, composition="factor").name(uniform(3)),
    ]
    assert len({one.name(uniform(3)), *others}) == 5
