"""lm-eval's `local-completions`, unmodified, against a real server: its numbers are ours."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.served import World

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.connectors.local.forward import answer_nll
from evomerge.connectors.local.generation import greedy_answers
from evomerge.connectors.local.rows import RowEncoder
from evomerge.evaluation import Example
from evomerge.merging.lora.adapter import read_adapter
from evomerge.merging.lora.artifact import MergedAdapter
from evomerge.merging.lora.population import Population

CHOICES = [
    Example(f"{n} and {n} is", f"{2 * n}", (f"{2 * n}", "many more", f"{n}"), row=n)
    for n in range(1, 9)
]
WRITTEN = [Example(f"question {n}?", "to be set", row=n) for n in range(1, 7)]
ROOM = 6
DATA = {"dataset_path": "json", "test_split": "test"}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "chosen": {
        **DATA,
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc_norm"}],
    },
    "written": {
        **DATA,
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{completion}}",
        "generation_kwargs": {"until": ["never this"], "max_gen_toks": ROOM},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture(scope="module")
def base(world: World) -> BaseModel:
    return load_base(world.base, threads=1)


@pytest.fixture(scope="module")
def population(world: World) -> Population:
    return MergedAdapter(read_adapter(world.adapters["mj_merged"]).modules).population()


@pytest.fixture(scope="module")
def written(base: BaseModel, population: Population) -> list[Example]:
    """Half of the rows ask for what the merge says."""
    encoder = RowEncoder(base.tokenizer, base.context_tokens)
    prompts = [encoder.asked(example, ROOM) for example in WRITTEN]
    [said] = greedy_answers(base, population, prompts, max_new_tokens=ROOM, batch_tokens=512)
    return [
        Example(example.prompt, answer.text if number % 2 else "something else")
        for number, (example, answer) in enumerate(zip(WRITTEN, said, strict=True))
    ]


@pytest.fixture(scope="module")
def run(
    url: str, world: World, written: list[Example], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], Path]:
    """The results of both tasks, and the folder that holds the samples."""
    folder = tmp_path_factory.mktemp("lm-eval")
    rows = {
        "chosen": [
            {"prompt": e.prompt, "choices": list(e.choices), "answer": e.answer} for e in CHOICES
        ],
        "written": [{"prompt": e.prompt, "completion": e.completion} for e in written],
    }
    for name, task in TASKS.items():
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
        spec = {"task": name, **task, "dataset_kwargs": {"data_files": {"test": str(data)}}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(spec))
    arguments = {
        "base_url": f"{url}/v1/completions",
        "model": "merged",
        "tokenizer": str(world.base),
        "num_concurrent": 2,
        "max_retries": 1,
    }
    environment = {
        **os.environ,
        "OPENAI_API_KEY": "sk-right",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
    }
    command = ["--model", "local-completions", "--batch_size", "4", "--tasks", ",".join(TASKS)]
    command += ["--model_args", ",".join(f"{name}={value}" for name, value in arguments.items())]
    command += ["--include_path", str(folder), "--output_path", str(folder / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *command, "--log_samples"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    [results] = (folder / "out").rglob("results_*.json")
    return json.loads(results.read_text())["results"], results.parent


def loss(base: BaseModel, population: Population, metric: str, examples: list[Example]) -> float:
    evaluator = LocalEvaluator(base, _NoSpace(), metric, end_of_text=False, max_new_tokens=ROOM)
    return float(asyncio.run(evaluator.score_population(population, examples)).means()[0])


class _NoSpace:
    def realise(self, candidates: object) -> Population:
        raise NotImplementedError


def samples(folder: Path, task: str) -> list[dict[str, Any]]:
    [file] = folder.glob(f"samples_{task}_*.jsonl")
    found = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted(found, key=lambda sample: sample["doc_id"])


def test_log_likelihoods_of_options_are_the_evaluators(
    run: tuple[dict[str, Any], Path], base: BaseModel, population: Population
) -> None:
    results, folder = run
    encoder = RowEncoder(base.tokenizer, base.context_tokens, end_of_text=False)
    rows = [encoder.scored(example, choice) for example in CHOICES for choice in example.choices]
    nll = answer_nll(base, population, rows, batch_tokens=512)[0]
    found = [
        float(answer[0])
        for sample in samples(folder, "chosen")
        for answer in sample["filtered_resps"]
    ]
    assert found == pytest.approx(list(-nll), abs=1e-3)
    accuracy = 1 - loss(base, population, "choice_accuracy", CHOICES)
    assert results["chosen"]["acc_norm,none"] == pytest.approx(accuracy, abs=1e-3)


def test_written_answers_are_the_evaluators(
    run: tuple[dict[str, Any], Path],
    base: BaseModel,
    population: Population,
    written: list[Example],
) -> None:
    results, folder = run
    score = 1 - loss(base, population, "exact_match", written)
    assert 0 < score < 1
    assert results["written"]["exact_match,none"] == pytest.approx(score, abs=1e-3)
    for sample, example in zip(samples(folder, "written"), written, strict=True):
        said = sample["filtered_resps"][0].strip()
        assert (said == example.completion) == (example.completion != "something else")
