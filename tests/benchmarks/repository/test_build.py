"""A tiny repository: sound for the project's own readers, made once, the same bytes again."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.repository.base import write_base
from benchmarks.repository.build import BuildError, read_task, write_record, write_tasks
from benchmarks.repository.experts import Trained, make_expert, read_record
from benchmarks.repository.members import Members
from benchmarks.repository.settings import BaseRecipe, ExpertRecipe, Settings
from benchmarks.repository.tasks import Task

from benchmarks.repository import NotBuiltError, Repository, open_repository
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.merging.lora.adapter import read_adapter
from evomerge.merging.lora.pool import stack_folders
from evomerge.merging.lora.space import LoraSpace
from evomerge.optimizers.candidate import base as base_candidate
from evomerge.optimizers.candidate import uniform

TINY = Settings(
    seed=3,
    experts=("ago-es", "ago-pt"),
    background=("ago-en",),
    members=Members(("ago-pt",), (), ("ago-es",), ()),
    least=1,
    base=BaseRecipe(
        vocabulary=300, hidden=16, layers=1, heads=2, intermediate=32, context=96, steps=20
    ),
    expert=ExpertRecipe(rank=4, steps=40, learning_rate=1e-2),
)


@pytest.fixture(scope="module", autouse=True)
def _process_is_left_as_it_was() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


def expert(home: Path, name: str, out: Path) -> Trained:
    """Train one of TINY's experts."""
    rows = read_task(home / "tasks" / f"{name}.jsonl")
    return make_expert(Task.of(name), rows, TINY, home / "base", out)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TINY's folder, built in this process."""
    folder = tmp_path_factory.mktemp("repository")
    write_tasks(TINY, folder / "tasks")
    (folder / "base").mkdir()
    write_base(TINY, folder / "base", lambda line: None)
    trained = [expert(folder, name, folder / "experts" / name) for name in TINY.experts]
    write_record(TINY, folder, trained)
    return folder


@pytest.fixture(scope="module")
def repository(home: Path) -> Repository:
    """TINY, opened."""
    return open_repository(home)


def test_it_opens_with_all_that_was_built(repository: Repository) -> None:
    assert set(repository.experts) == set(repository.tasks) == {"ago-es", "ago-pt"}
    assert set(repository.pool) == {"ago-es"}
    assert repository.members == TINY.members
    assert repository.record["tasks"]["ago-es"]["relatives"] == ["ago-pt"]
    assert repository.record["dropped"] == []


def test_rows_come_by_split(repository: Repository) -> None:
    splits = {split: repository.rows("ago-es", split) for split in ("train", "search", "held_out")}
    counts = {split: len(rows) for split, rows in splits.items()}
    assert counts == repository.record["tasks"]["ago-es"]["rows"]
    assert len({row.prompt for rows in splits.values() for row in rows}) == sum(counts.values())
    with pytest.raises(KeyError, match="other"):
        repository.rows("ago-es", "other")


def test_adapters_and_base_are_read_by_the_project(repository: Repository) -> None:
    model = load_base(repository.base, threads=1)
    for name, folder in repository.experts.items():
        adapter = read_adapter(folder)
        adapter.check_against(model.linear_shapes())
        assert {shape.rank for shape in adapter.shapes.values()} == {4}, name
        assert set(adapter.shapes) == set(model.linear_shapes()), name


def test_recorded_losses_are_those_that_the_evaluator_finds(repository: Repository) -> None:
    pool = stack_folders([repository.experts["ago-es"]])
    evaluator = LocalEvaluator(load_base(repository.base, threads=1), LoraSpace(pool, "exact"))
    rows = repository.rows("ago-es", "held_out")
    scores = asyncio.run(evaluator.score([base_candidate(1), uniform(1)], rows))
    record = read_record(repository.experts["ago-es"])
    found = np.asarray(scores.losses).mean(axis=1)
    np.testing.assert_allclose(found, [record.base_loss, record.expert_loss], rtol=1e-3)


def test_an_expert_that_is_made_again_has_the_same_bytes(home: Path, tmp_path: Path) -> None:
    again = tmp_path / "ago-pt"
    expert(home, "ago-pt", again)
    files = sorted(path.name for path in again.iterdir())
    assert "adapter_model.safetensors" in files
    for name in files:
        assert (again / name).read_bytes() == (home / "experts/ago-pt" / name).read_bytes(), name


def test_a_base_that_is_made_again_has_the_same_bytes(home: Path, tmp_path: Path) -> None:
    write_base(TINY, tmp_path, lambda line: None)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / name).read_bytes() == (home / "base" / name).read_bytes(), name


def test_tasks_of_another_build_are_refused(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "tasks", tmp_path / "tasks")
    write_tasks(TINY, tmp_path / "tasks")
    with (tmp_path / "tasks" / "ago-es.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(BuildError, match=r"ago-es\.jsonl"):
        write_tasks(TINY, tmp_path / "tasks")


def test_an_expert_no_better_than_the_base_is_dropped(home: Path, tmp_path: Path) -> None:
    good, poor = (read_record(home / "experts" / name) for name in TINY.experts)
    poor = replace(poor, expert_loss=poor.base_loss)
    free = replace(TINY, members=Members((), (), ("ago-es",), ()))
    write_record(free, tmp_path, [good, poor])
    assert set(open_repository(tmp_path).experts) == {"ago-es"}
    with pytest.raises(BuildError, match="ago-pt"):
        write_record(TINY, tmp_path, [good, poor])
    with pytest.raises(BuildError, match="2 are needed"):
        write_record(replace(free, least=2), tmp_path, [good, poor])


def test_what_is_not_built_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotBuiltError, match=r"python -m benchmarks\.repository --quick"):
        open_repository(tmp_path, quick=True)
