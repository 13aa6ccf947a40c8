"""The shipped pool and dataset: sound, small, and fair to the claim that the demo makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.example_tasks import EXPERTS, TARGET, Task, rows_of, split
from examples.base import BASE_NAME

from evomerge.evaluation import read_examples
from evomerge.merging.lora.adapter import read_adapter

EXAMPLES = Path(__file__).parents[2] / "examples"
POOL = EXAMPLES / "pool"
DATA = EXAMPLES / "data" / f"{TARGET.name}.jsonl"
NAMES = [task.name for task in EXPERTS]
LAYERS = 30
SHAPES = {"q_proj": (576, 576), "k_proj": (192, 576), "v_proj": (192, 576), "o_proj": (576, 576)}
BASE_SHAPES = {
    f"model.layers.{layer}.self_attn.{module}": shape
    for layer in range(LAYERS)
    for module, shape in SHAPES.items()
}


def test_the_pool_holds_the_experts_of_the_recipe_and_no_expert_of_the_target() -> None:
    assert sorted(folder.name for folder in POOL.iterdir()) == sorted(NAMES)
    assert 8 <= len(NAMES) <= 12
    assert TARGET.name not in NAMES


def test_the_adapters_take_12_megabytes_at_most() -> None:
    sizes = [file.stat().st_size for file in POOL.glob("*/adapter_model.safetensors")]
    assert len(sizes) == len(NAMES)
    assert sum(sizes) <= 12_000_000


@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_is_sound_and_fits_the_base(name: str) -> None:
    adapter = read_adapter(POOL / name)
    adapter.check_against(BASE_SHAPES)
    assert {shape.rank for shape in adapter.shapes.values()} <= set(range(1, 9))
    assert set(adapter.shapes) == set(BASE_SHAPES)
    config = json.loads((POOL / name / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == BASE_NAME
    assert config["target_modules"] == sorted(config["target_modules"])


@pytest.mark.parametrize("name", NAMES)
def test_an_expert_has_learned_its_task(name: str) -> None:
    record = json.loads((POOL / name / "training.json").read_text())
    assert record["task"] == name
    assert record["held_ce_after"] < 0.6 * record["held_ce_before"]


@pytest.mark.parametrize("task", EXPERTS, ids=lambda task: task.name)
def test_a_training_record_counts_the_rows_of_the_recipe(task: Task) -> None:
    record = json.loads((POOL / task.name / "training.json").read_text())
    train, held = split(rows_of(task))
    assert (record["train"], record["held"]) == (len(train), len(held))


def test_no_row_of_the_target_was_trained_on() -> None:
    target = {row.prompt for row in rows_of(TARGET)}
    for task in EXPERTS:
        assert target.isdisjoint(row.prompt for row in rows_of(task)), task.name


def test_the_dataset_is_what_the_recipe_writes() -> None:
    written = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    made = [{"prompt": row.prompt, "completion": row.completion} for row in rows_of(TARGET)]
    assert written == made


def test_the_service_reads_the_dataset() -> None:
    examples = read_examples(DATA.read_bytes(), name=DATA.name)
    assert 200 <= len(examples) <= 400
    assert len({example.prompt for example in examples}) == len(examples)
    assert all(len(example.prompt) <= 64 and example.completion for example in examples)
