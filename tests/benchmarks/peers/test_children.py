"""The programs that need no other environment, run as the benchmark runs them, on a tiny model."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.running import Run, run_child
from benchmarks.peers.scoring import score, score_report
from benchmarks.peers.task import Task, encoded, searched_and_proof
from safetensors.numpy import load_file
from tests.support.tiny import make_adapter, make_base

from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.rows import RowEncoder
from evomerge.evaluation.example import Example

EXAMPLES = [Example(f"number {number}", str(number * number), row=number) for number in range(12)]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    folder = tmp_path_factory.mktemp("pool")
    base = make_base(folder / "base")
    encoder = RowEncoder(load_base(base).tokenizer, 256)
    search, proof = searched_and_proof(EXAMPLES, 0.25, 3, encoder)
    experts = {
        f"expert{seed}": make_adapter(folder / f"expert{seed}", base, seed) for seed in range(3)
    }
    return Task(base, experts, search, proof, 0.25, 40, 4, 3, 1)


def run(name: str, task: Task, folder: Path) -> Run:
    peer = next(peer for peer in PEERS if peer.name == name)
    return run_child(
        Path(sys.executable), peer.script, task, folder, options=peer.options, limit=300
    )


def test_both_forms_of_the_reference_are_one_search(task: Task, tmp_path: Path) -> None:
    released, fair = (run(name, task, tmp_path / name) for name in ("reference", "reference-fair"))
    assert (released.failure, fair.failure) == (None, None)
    assert released.report is not None
    assert fair.report is not None
    assert released.report.evaluations == fair.report.evaluations == 36
    assert released.report.search_loss == pytest.approx(fair.report.search_loss, rel=1e-6)
    one, other = (
        load_file(report.model / "adapter_model.safetensors")
        for report in (released.report, fair.report)
    )
    assert one.keys() == other.keys()
    for tensor_name, tensor in one.items():
        np.testing.assert_allclose(tensor, other[tensor_name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["ours", "ours-paper", "peft"])
def test_what_a_search_says_of_its_model_is_what_the_scorer_finds(
    name: str, task: Task, tmp_path: Path
) -> None:
    done = run(name, task, tmp_path / name)
    assert done.failure is None
    assert done.report is not None
    stored = score_report(done.report, task.base, task.search)
    penalty_and_bfloat16 = 0.1
    assert stored.mean == pytest.approx(done.report.search_loss, abs=penalty_and_bfloat16)
    assert stored.mean != score(task.base, task.search).mean


def test_encoded_rows_are_what_the_split_of_our_job_gives(task: Task) -> None:
    prompts = {row.prompt for row in task.search} | {row.prompt for row in task.proof}
    assert prompts == {example.prompt for example in EXAMPLES}
    assert (len(task.search), len(task.proof)) == (9, 3)
    assert encoded(EXAMPLES, RowEncoder(load_base(task.base).tokenizer, 256))[0].scored == 3
