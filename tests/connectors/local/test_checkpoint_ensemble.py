"""The ensemble of ELMs that is read in the memory of the seed, against ELMs that were loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from tests.support.elms import make_elm
from transformers import AutoModelForCausalLM

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.checkpoint_ensemble import ElmReader, EnsembleEvaluator
from evomerge.connectors.local.checkpoint_evaluator import Unchanged
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.connectors.local.merged_weights import MergedWeights
from evomerge.evaluation.example import Example
from evomerge.merging.checkpoint.files import read_checkpoint
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.forest import ensemble
from evomerge.merging.forest.prior import estimate
from evomerge.optimizers.candidate import uniform

PRIOR = np.array([0.2, 0.5, 0.3])


@pytest.fixture(scope="module")
def elms(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("elms")
    return [make_elm(folder / f"elm{n}", base_folder, n, strength=0.1) for n in range(3)]


@pytest.fixture(scope="module")
def reader(base: BaseModel, base_folder: Path, elms: list[Path]) -> ElmReader:
    space = CheckpointSpace(read_checkpoint(base_folder), [read_checkpoint(elm) for elm in elms])
    return ElmReader(MergedWeights(base, space), 64)


def by_transformers(elms: Sequence[Path], tokens: Sequence[int]) -> np.ndarray:
    """(N, T - 1): what plain transformers gives to every token but the first."""
    ids = torch.tensor([tokens])
    found = []
    for elm in elms:
        logits = AutoModelForCausalLM.from_pretrained(elm)(ids).logits[0, :-1].detach().double()
        found.append(torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0].numpy())
    return np.stack(found)


def test_every_elm_reads_every_token(
    base: BaseModel, elms: list[Path], reader: ElmReader, examples: list[Example]
) -> None:
    rows = LocalEvaluator(base, Unchanged()).rows(examples)
    expected = [by_transformers(elms, row.tokens) for row in rows]
    for found, own in zip(reader.log_probs(rows), expected, strict=True):
        np.testing.assert_allclose(found, own, atol=1e-4)
    np.testing.assert_allclose(reader.prior(rows), estimate(expected), atol=1e-4)


async def test_cross_entropy_is_that_of_the_mixture(
    base: BaseModel, elms: list[Path], reader: ElmReader, examples: list[Example]
) -> None:
    """The posterior has read the prompt when the answer begins."""
    scoring = LocalEvaluator(base, Unchanged())
    evaluator = EnsembleEvaluator(reader, PRIOR, scoring, "cross_entropy")
    scores = await evaluator.score([uniform(3)] * 2, examples)
    assert np.array_equal(scores.losses[0], scores.losses[1])
    assert scores.weights.tolist() == [row.scored for row in scoring.rows(examples)]
    assert scores.usage.tokens == 3 * sum(len(row.tokens) for row in scoring.rows(examples))
    for loss, row in zip(scores.losses[0], scoring.rows(examples), strict=True):
        every = by_transformers(elms, row.tokens)
        whole = logsumexp(np.log(PRIOR) + every.sum(1))
        prompt = logsumexp(np.log(PRIOR) + every[:, : -row.scored].sum(1))
        assert loss == pytest.approx((prompt - whole) / row.scored, abs=1e-4)


async def test_choices_are_compared_by_the_mixture(
    base: BaseModel, elms: list[Path], reader: ElmReader
) -> None:
    rows = [
        Example("Berlin is in", answer, choices=("Spain", "Germany", "it"))
        for answer in ("Spain", "Germany", "it")
    ]
    scoring = LocalEvaluator(base, Unchanged(), "choice_accuracy")
    scores = await EnsembleEvaluator(reader, PRIOR, scoring, "choice_accuracy").score(
        [uniform(3)], rows
    )
    plain = LocalEvaluator(base, Unchanged())
    options = [Example("Berlin is in", choice) for choice in rows[0].choices]
    nll = []
    for row, option in zip(plain.rows(options), options, strict=True):
        mixed = ensemble.score(by_transformers(elms, row.tokens), np.log(PRIOR))
        nll.append(-mixed[-row.scored :].sum() / len(option.completion))
    assert scores.losses[0].tolist() == [float(n != np.argmin(nll)) for n in range(3)]
    assert scores.weights.tolist() == [1.0, 1.0, 1.0]


async def test_a_broken_elm_breaks_the_ensemble(
    base_folder: Path, tmp_path: Path, examples: list[Example]
) -> None:
    broken = make_elm(tmp_path / "broken", base_folder, 1, strength=float("nan"))
    base = load_base(base_folder, threads=1)
    space = CheckpointSpace(read_checkpoint(base_folder), [read_checkpoint(broken)])
    reader = ElmReader(MergedWeights(base, space), 64)
    evaluator = EnsembleEvaluator(
        reader, np.ones(1), LocalEvaluator(base, Unchanged()), "cross_entropy"
    )
    assert np.isnan((await evaluator.score([uniform(1)], examples)).losses).all()
