"""The training loop: steps as they are written down, and resumed to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, PreTrainedModel

from evomerge.connectors.local.training.architecture import first_weights
from evomerge.connectors.local.training.balance import BalancedBatches
from evomerge.connectors.local.training.blocks import Blocks
from evomerge.connectors.local.training.checkpoints import Checkpoints
from evomerge.connectors.local.training.errors import (
    CheckpointStateError,
    DivergedError,
    OptimizerStateError,
    StoppedTrainingError,
)
from evomerge.connectors.local.training.progress import Progress, unwatched
from evomerge.connectors.local.training.recipe import Recipe
from evomerge.connectors.local.training.tokens import TokenCache
from evomerge.connectors.local.training.trainer import Trainer, stored_weights

VOCABULARY = 32
RECIPE = Recipe(
    tokens=6 * 4 * 8,
    block_tokens=8,
    batch_blocks=4,
    learning_rate=1e-2,
    warmup_share=0.2,
    checkpoint_steps=2,
)


def llama() -> PreTrainedModel:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=16,
        tie_word_embeddings=True,
    )
    return first_weights(config, 5)


def gpt2() -> PreTrainedModel:
    """One with dropout and with biases."""
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    assert config.resid_pdrop > 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return GPT2LMHeadModel(config)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def batches(tmp_path: Path) -> BalancedBatches:
    """Tokens that count upwards, so that there is something to learn."""
    (np.arange(8 * 40 + 1) % VOCABULARY).astype("<u2").tofile(tmp_path / "train.tokens")
    cache = TokenCache("d", "hash", tmp_path, np.dtype("<u2"))
    return BalancedBatches([Blocks(cache, "train", 8)], 4, seed=2)


def trainer(
    batches: BalancedBatches,
    folder: Path,
    recipe: Recipe = RECIPE,
    *,
    model: PreTrainedModel | None = None,
    optimizer: Mapping[str, Tensor] | None = None,
    done: int = 0,
) -> Trainer:
    return Trainer(
        model or llama(),
        batches,
        recipe,
        Checkpoints(folder),
        optimizer=optimizer or {},
        schedule_done=done,
    )


def weights(run: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in stored_weights(run.model).items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_steps_are_those_of_plain_torch(batches: BalancedBatches, tmp_path: Path) -> None:
    """AdamW written out with torch alone: loss, clip, rate, decay on matrices."""
    run = trainer(batches, tmp_path / "c")
    run.run(unwatched)
    plain = llama()
    groups = [
        {"params": [each for each in plain.parameters() if each.ndim > 1], "weight_decay": 0.1},
        {"params": [each for each in plain.parameters() if each.ndim == 1], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    losses = []
    for step in range(RECIPE.steps):
        rows = torch.from_numpy(batches.batch(step))
        logits = plain(input_ids=rows[:, :-1]).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        for group in adam.param_groups:
            group["lr"] = RECIPE.rate(step)
        adam.step()
        adam.zero_grad()
        losses.append(loss.item())
    assert run.losses == pytest.approx(losses, rel=1e-5)
    own, other = weights(run), stored_weights(plain)
    assert all(torch.allclose(own[name], other[name], atol=2e-5) for name in own)
    assert run.losses[-1] < run.losses[0]


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_run_stopped_at_any_step_goes_on_to_the_same_bits(
    batches: BalancedBatches, tmp_path: Path, make: type[PreTrainedModel]
) -> None:
    whole = trainer(batches, tmp_path / "whole", model=make())
    whole.run(unwatched)
    for stop in range(RECIPE.steps):
        folder = tmp_path / f"stop-{stop}"
        with pytest.raises(StoppedTrainingError):
            trainer(batches, folder, model=make()).run(lambda now, at=stop: now.step == at)
        torch.rand(7)  # The generator is somewhere else in another process.
        rest = trainer(batches, folder, model=make())
        assert rest.step == stop
        rest.run(unwatched)
        assert same(weights(rest), weights(whole))
        assert same(rest.state(), whole.state())
        assert rest.losses == whole.losses


def test_the_process_s_generator_is_left_as_it_was(
    batches: BalancedBatches, tmp_path: Path
) -> None:
    before = torch.random.get_rng_state()
    trainer(batches, tmp_path / "c", model=gpt2()).run(unwatched)
    assert torch.equal(before, torch.random.get_rng_state())


def test_dropout_is_on_and_follows_the_seed(batches: BalancedBatches, tmp_path: Path) -> None:
    losses = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run = trainer(batches, tmp_path / name, replace(RECIPE, seed=seed), model=gpt2())
        run.run(unwatched)
        losses.append(run.losses)
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("micro", [1, 3, 4, 9])
def test_micro_batches_are_the_batch(batches: BalancedBatches, tmp_path: Path, micro: int) -> None:
    whole = trainer(batches, tmp_path / "whole")
    whole.run(unwatched)
    parts = trainer(batches, tmp_path / "parts", replace(RECIPE, micro_blocks=micro))
    parts.run(unwatched)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5)
    own, other = weights(parts), weights(whole)
    assert all(torch.allclose(own[name], other[name], atol=2e-5) for name in own)


def test_precision_is_float32_on_a_cpu_and_bfloat16_where_it_is_asked_for(
    batches: BalancedBatches, tmp_path: Path
) -> None:
    runs = {
        precision: trainer(batches, tmp_path / precision, replace(RECIPE, precision=precision))  # type: ignore[arg-type]
        for precision in ("auto", "float32", "bfloat16")
    }
    kinds = {}
    for precision, run in runs.items():
        with run.computing():
            kinds[precision] = run.model.lm_head(torch.zeros(1, 16)).dtype
        run.run(unwatched)
    assert kinds == {
        "auto": torch.float32,
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
    }
    assert runs["auto"].losses == runs["float32"].losses != runs["bfloat16"].losses
    assert runs["bfloat16"].losses == pytest.approx(runs["float32"].losses, rel=0.05)
    assert {each.dtype for each in weights(runs["bfloat16"]).values()} == {torch.float32}


def test_the_watch_sees_every_step_and_the_one_it_begins_with(
    batches: BalancedBatches, tmp_path: Path
) -> None:
    seen: list[Progress] = []

    def watch(progress: Progress) -> bool:
        seen.append(progress)
        return progress.step == 3 and len(seen) == 4

    with pytest.raises(StoppedTrainingError) as stopped:
        trainer(batches, tmp_path / "c").run(watch)
    assert stopped.value.step == 3
    trainer(batches, tmp_path / "c").run(watch)
    assert [progress.step for progress in seen] == [0, 1, 2, 3, 3, 4, 5, 6]
    assert [progress.own_tokens for progress in seen[:3]] == [0, 32, 64]
    assert {progress.steps for progress in seen} == {6}
    assert seen[0].loss is None
    assert seen[0].learning_rate is None
    assert seen[3].loss == seen[4].loss
    assert seen[1].learning_rate == RECIPE.rate(0)


def test_a_parents_optimizer_is_continued(batches: BalancedBatches, tmp_path: Path) -> None:
    """Two runs of which the second continues are one run over both."""
    both = replace(RECIPE, schedule_tokens=2 * RECIPE.own_tokens)
    first = trainer(batches, tmp_path / "first", both)
    first.run(unwatched)
    second = trainer(
        batches,
        tmp_path / "second",
        both,
        model=first.model,
        optimizer=first.state(),
        done=RECIPE.own_tokens,
    )
    rates: list[float | None] = []

    def watch(progress: Progress) -> bool:
        rates.append(progress.learning_rate)
        return False

    second.run(watch)
    whole = replace(RECIPE, tokens=2 * RECIPE.own_tokens)
    assert rates[1:] == [whole.rate(step) for step in range(6, 12)]
    assert {float(value) for name, value in second.state().items() if "step." in name} == {12.0}


def test_a_foreign_optimizer_is_refused(batches: BalancedBatches, tmp_path: Path) -> None:
    first = trainer(batches, tmp_path / "first", model=gpt2())
    first.run(unwatched)
    with pytest.raises(OptimizerStateError, match="has no exp_avg for weight"):
        trainer(batches, tmp_path / "second", optimizer=first.state())


def test_checkpoints_of_another_model_are_refused(batches: BalancedBatches, tmp_path: Path) -> None:
    trainer(batches, tmp_path / "c", model=gpt2()).run(unwatched)
    with pytest.raises(CheckpointStateError, match="has the weights of another model"):
        trainer(batches, tmp_path / "c")


def test_a_loss_that_is_not_finite_ends_the_run(batches: BalancedBatches, tmp_path: Path) -> None:
    model = llama()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DivergedError, match="step 1: the loss is nan"):
        trainer(batches, tmp_path / "c", model=model).run(unwatched)
    assert not (tmp_path / "c").exists()
