"""Candidates over checkpoints, scored in place; the seed is back afterwards, whatever happens."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.elms import make_elm, retype, rewrite, shard, tensors_of
from tests.support.tiny import make_base
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from evomerge.connectors.local import forward
from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.checkpoint_evaluator import CheckpointEvaluator
from evomerge.connectors.local.errors import ParameterError, WrongSeedError
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.connectors.local.layout import Layout
from evomerge.connectors.local.merged_weights import MergedWeights
from evomerge.connectors.local.rows import Row
from evomerge.evaluation.example import Example
from evomerge.merging.checkpoint.files import read_checkpoint
from evomerge.merging.checkpoint.merge import merge
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.errors import CandidateError
from evomerge.merging.lora.population import Population
from evomerge.optimizers.candidate import Candidate, one_hot, uniform
from evomerge.optimizers.candidate import base as base_candidate

CANDIDATE = Candidate(np.array([[0.4, 1.0]]), np.array([[0.9, -0.5]]))
TOKENS = torch.tensor([[72, 101, 108, 108, 111, 32, 119]])


@pytest.fixture(scope="module")
def elms(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("elms")
    return [make_elm(folder / f"elm{n}", base_folder, n, strength=0.1) for n in range(2)]


def made(folder: Path, elms: Sequence[Path]) -> CheckpointSpace:
    return CheckpointSpace(read_checkpoint(folder), [read_checkpoint(elm) for elm in elms])


@pytest.fixture(scope="module")
def space(base_folder: Path, elms: list[Path]) -> CheckpointSpace:
    return made(base_folder, elms)


def weights(model: nn.Module) -> Mapping[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


async def scored_alone(folder: Path, examples: Sequence[Example]) -> np.ndarray:
    """The losses of a checkpoint that is loaded from its folder."""
    evaluator = LocalEvaluator(load_base(folder, threads=1), _Nothing())
    scores = await evaluator.score_population(Population(1, {}), examples)
    return scores.losses[0]


class _Nothing:
    def realise(self, candidates: Sequence[Candidate]) -> Population:
        raise NotImplementedError


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
async def test_the_written_checkpoint_is_the_evaluated_one(
    base: BaseModel,
    base_folder: Path,
    elms: list[Path],
    space: CheckpointSpace,
    examples: list[Example],
    tmp_path: Path,
    dtype: torch.dtype | None,
) -> None:
    merge(base_folder, elms, CANDIDATE, tmp_path / "merged", dtype=dtype)
    evaluator = CheckpointEvaluator(MergedWeights(base, space), dtype=dtype)
    found = await evaluator.score([CANDIDATE], examples)
    assert np.array_equal(found.losses[0], await scored_alone(tmp_path / "merged", examples))
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    with MergedWeights(base, space).merged(CANDIDATE, dtype), torch.inference_mode():
        assert torch.equal(base.model(TOKENS).logits, stored(TOKENS).logits)


async def test_base_and_elms_alone_are_what_they_are_on_disk(
    base: BaseModel,
    base_folder: Path,
    elms: list[Path],
    space: CheckpointSpace,
    examples: list[Example],
) -> None:
    candidates = [base_candidate(2), one_hot(0, 2), one_hot(1, 2)]
    found = await CheckpointEvaluator(MergedWeights(base, space)).score(candidates, examples)
    for losses, folder in zip(found.losses, [base_folder, *elms], strict=True):
        assert np.array_equal(losses, await scored_alone(folder, examples))


async def test_the_seed_is_back_when_scoring_ends(
    base: BaseModel, space: CheckpointSpace, examples: list[Example]
) -> None:
    before = weights(base.model)
    evaluator = CheckpointEvaluator(MergedWeights(base, space))
    await evaluator.score([CANDIDATE, uniform(2)], examples)
    assert same(weights(base.model), before)
    with MergedWeights(base, space).merged(CANDIDATE):
        assert not same(weights(base.model), before)
    with pytest.raises(KeyError), MergedWeights(base, space).merged(CANDIDATE):
        raise KeyError
    with pytest.raises(CandidateError):
        await evaluator.score([uniform(3)], examples)
    assert same(weights(base.model), before)


async def test_others_wait_for_the_seed(
    base: BaseModel, space: CheckpointSpace, examples: list[Example]
) -> None:
    """Two evaluators on one model, at the same time, give what each gives alone."""
    one, two = CheckpointEvaluator(MergedWeights(base, space)), LocalEvaluator(base, _Nothing())
    nothing = Population(1, {})
    alone = [
        await one.score([CANDIDATE], examples),
        await two.score_population(nothing, examples),
    ]
    for _ in range(3):
        together = await asyncio.gather(
            one.score([CANDIDATE], examples), two.score_population(nothing, examples)
        )
        for found, expected in zip(together, alone, strict=True):
            assert np.array_equal(found.losses, expected.losses)


async def test_cancelling_stops_and_brings_the_seed_back(
    base: BaseModel,
    space: CheckpointSpace,
    examples: list[Example],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = weights(base.model)
    loop, entered = asyncio.get_running_loop(), asyncio.Event()
    go_on, ran = threading.Event(), []
    whole = forward.lay_out

    def slow(batch: Sequence[Sequence[Row]]) -> Layout:
        ran.append(batch)
        loop.call_soon_threadsafe(entered.set)
        go_on.wait()
        return whole(batch)

    monkeypatch.setattr(forward, "lay_out", slow)
    evaluator = CheckpointEvaluator(MergedWeights(base, space), batch_tokens=1)
    scoring = asyncio.create_task(evaluator.score([CANDIDATE] * 4, examples))
    await entered.wait()
    scoring.cancel()
    for _ in range(10):  # The scoring hears of it before the thread goes on.
        await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await scoring
    assert len(ran) == 1
    assert same(weights(base.model), before)


async def test_a_candidate_that_breaks_the_model_has_nan_and_the_next_has_not(
    base: BaseModel, space: CheckpointSpace, examples: list[Example]
) -> None:
    broken = Candidate(np.ones((1, 2)), np.full((1, 2), 1e60))
    found = await CheckpointEvaluator(MergedWeights(base, space)).score(
        [broken, uniform(2)], examples
    )
    assert np.isnan(found.losses[0]).any()
    assert np.isfinite(found.losses[1]).all()


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32])
async def test_shards_and_dtypes_of_the_files_do_not_matter(
    base_folder: Path, examples: list[Example], tmp_path: Path, stored: torch.dtype
) -> None:
    seed = retype(shutil.copytree(base_folder, tmp_path / "seed"), stored)
    elm = make_elm(tmp_path / "elm", shard(seed, 3), 1, strength=0.1)
    merging = MergedWeights(load_base(seed, threads=1), made(seed, [elm]))
    evaluator = CheckpointEvaluator(merging)
    found = await evaluator.score([one_hot(0, 1)], examples)
    assert np.array_equal(found.losses[0], await scored_alone(elm, examples))


def test_refuses_a_model_that_is_not_the_seed(space: CheckpointSpace, tmp_path: Path) -> None:
    other = load_base(make_base(tmp_path / "other", seed=8), threads=1)
    with pytest.raises(WrongSeedError, match="'other' is not the seed 'tiny'"):
        MergedWeights(other, space)


def test_names_a_parameter_that_the_files_do_not_have(base_folder: Path, tmp_path: Path) -> None:
    """transformers draws what is missing at random, which no merge could tell of."""
    seed = shutil.copytree(base_folder, tmp_path / "seed")
    rewrite(seed, {k: v for k, v in tensors_of(seed).items() if k != "model.norm.weight"})
    elm = make_elm(tmp_path / "elm", seed, 1)
    with pytest.raises(ParameterError, match=r"'model\.norm\.weight' of model 'seed' has no"):
        MergedWeights(load_base(seed, threads=1), made(seed, [elm]))


async def test_tensors_that_loading_leaves_out_are_left_out(
    base_folder: Path, examples: list[Example], tmp_path: Path
) -> None:
    seed = shutil.copytree(base_folder, tmp_path / "seed")
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.arange(4.0)}
    rewrite(seed, tensors_of(seed) | table)
    elm = make_elm(tmp_path / "elm", seed, 1)
    merging = MergedWeights(load_base(seed, threads=1), made(seed, [elm]))
    evaluator = CheckpointEvaluator(merging)
    found = await evaluator.score([one_hot(0, 1)], examples)
    assert np.array_equal(found.losses[0], await scored_alone(elm, examples))
