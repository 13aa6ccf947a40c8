"""The common scorer gives what our own evaluator gives, and tells a model that is none."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers.scoring import UnreadableModelError, score, score_report
from benchmarks.peers.task import EncodedRow, Report, encoded
from tests.support.tiny import make_adapter, make_base

from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.connectors.local.rows import RowEncoder
from evomerge.evaluation.example import Example
from evomerge.merging.lora.pool import stack_folders
from evomerge.merging.lora.space import LoraSpace
from evomerge.optimizers.candidate import base as base_candidate
from evomerge.optimizers.candidate import one_hot

EXAMPLES = [Example("one", "1"), Example("twenty-two", "22"), Example("three", "3 and more")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def rows(base: Path) -> list[EncodedRow]:
    return encoded(EXAMPLES, RowEncoder(load_base(base).tokenizer, 256))


def test_losses_are_those_of_our_own_evaluator(
    base: Path, rows: list[EncodedRow], tmp_path: Path
) -> None:
    adapter = make_adapter(tmp_path / "expert", base)
    pool = stack_folders([adapter, make_adapter(tmp_path / "other", base, seed=1)])
    evaluator = LocalEvaluator(load_base(base), LoraSpace(pool, "exact"))
    ours = asyncio.run(evaluator.score([base_candidate(2), one_hot(0, 2)], EXAMPLES))
    for candidate, stored in enumerate((score(base, rows), score(base, rows, adapter=adapter))):
        np.testing.assert_allclose(stored.rows, ours.losses[candidate], rtol=1e-4)
        assert stored.mean == pytest.approx(ours.means()[candidate], rel=1e-4)


def test_a_checkpoint_is_scored_without_the_base(
    base: Path, rows: list[EncodedRow], tmp_path: Path
) -> None:
    report = Report(base, "checkpoint", 1, None, 1.0)
    assert score_report(report, tmp_path, rows).mean == score(base, rows).mean


def test_a_model_is_no_worse_than_itself(base: Path, rows: list[EncodedRow]) -> None:
    losses = score(base, rows)
    assert losses.p_value(losses, seed=1) == 1


@pytest.mark.parametrize("kind", ["adapter", "checkpoint"])
def test_a_folder_without_a_model_is_told(
    base: Path, rows: list[EncodedRow], tmp_path: Path, kind: str
) -> None:
    report = Report(tmp_path, kind, 1, None, 1.0)  # type: ignore[arg-type]
    with pytest.raises(UnreadableModelError, match=f"its {kind} cannot be loaded"):
        score_report(report, base, rows)
