"""The local evaluator: metrics, artifacts as they are stored, refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from evomerge.connectors.local import forward
from evomerge.connectors.local.adapters import adapted
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import ContextOverflowError
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.evaluation.errors import MetricError
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import metric_losses
from evomerge.merging.lora.artifact import merged_adapter
from evomerge.merging.lora.pool import LoraPool, stack_folders
from evomerge.merging.lora.population import Population
from evomerge.merging.lora.space import Composition, LoraSpace
from evomerge.optimizers.candidate import Candidate, one_hot

CHOICES = ("Germany", "France", "the United Kingdom", "Spain")


@pytest.fixture(scope="module")
def pool(experts: list[Path]) -> LoraPool:
    return stack_folders(experts)


@pytest.fixture(scope="module")
def signed() -> Candidate:
    return Candidate(np.array([[0.5, 1.0, 0.8]]), np.array([[0.7, -0.4, 0.9]]))


def peft_model(base_folder: Path, adapter: Path) -> torch.nn.Module:
    plain = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    return PeftModel.from_pretrained(plain, adapter).eval()


def log_probability(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0]
    chosen = torch.log_softmax(logits, -1)[range(len(prompt) - 1, len(logits) - 1), answer]
    return float(chosen.sum())


@pytest.mark.parametrize("composition", ["factor", "exact"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
async def test_the_written_adapter_is_the_evaluated_one(
    base: BaseModel,
    base_folder: Path,
    pool: LoraPool,
    signed: Candidate,
    examples: Sequence[Example],
    composition: Composition,
    dtype: torch.dtype,
    tmp_path: Path,
) -> None:
    space = LoraSpace(pool, composition)
    merged = merged_adapter(space, signed, dtype)
    merged.write(tmp_path / "merged", base.name)
    loaded = peft_model(base_folder, tmp_path / "merged")
    tokens = torch.tensor([base.tokenizer("Berlin is in Germany").input_ids])
    with torch.no_grad():
        expected = loaded(input_ids=tokens).logits
    with base.running(), adapted(base, merged.population()):
        found = base.logits(base.hidden(tokens))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    evaluator = LocalEvaluator(base, space)
    stored = await evaluator.score_population(merged.population(), examples)
    searched = await evaluator.score([signed], examples)
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    np.testing.assert_allclose(stored.losses, searched.losses, atol=tolerance)


async def test_cross_entropy_weighs_by_answer_tokens(
    base: BaseModel, pool: LoraPool, examples: Sequence[Example]
) -> None:
    scores = await LocalEvaluator(base, LoraSpace(pool, "exact")).score(
        [one_hot(1, 3), one_hot(2, 3)], examples
    )
    answers = [len(f" {example.completion}") + 1 for example in examples]
    assert scores.weights.tolist() == answers
    np.testing.assert_allclose(scores.means(), np.average(scores.losses, axis=1, weights=answers))


async def test_choice_accuracy_compares_options_by_the_byte(
    base: BaseModel, base_folder: Path, pool: LoraPool, experts: list[Path]
) -> None:
    prompts = ["Berlin is in", "The capital of", "x", "2+2=", "Paris lies in", "abc"]
    rows = [Example(p, CHOICES[n % 4], choices=CHOICES) for n, p in enumerate(prompts)]
    evaluator = LocalEvaluator(base, LoraSpace(pool, "exact"), "choice_accuracy")
    scores = await evaluator.score([one_hot(n, 3) for n in range(3)], rows)
    for folder, losses in zip(experts, scores.losses, strict=True):
        model = peft_model(base_folder, folder)
        for row, loss in zip(rows, losses, strict=True):
            prompt = list(base.tokenizer(row.prompt).input_ids)
            likely = [
                log_probability(model, prompt, [*base.tokenizer(f" {option}").input_ids, 256])
                / len(option.encode())
                for option in row.choices
            ]
            assert loss == float(int(np.argmax(likely)) != row.answer)
    assert set(scores.losses.ravel()) == {0.0, 1.0}
    assert (scores.weights == 1.0).all()


async def test_other_metrics_score_greedy_answers(
    base: BaseModel, base_folder: Path, pool: LoraPool, experts: list[Path]
) -> None:
    model = peft_model(base_folder, experts[0])
    prompts = ["Berlin is in", "a"]
    said = []
    for prompt in prompts:
        tokens = torch.tensor([base.tokenizer(prompt).input_ids])
        mask = torch.ones_like(tokens)
        out = model.generate(
            input_ids=tokens, attention_mask=mask, do_sample=False, max_new_tokens=6,
            pad_token_id=256,
        )  # fmt: skip
        ids = out[0, tokens.shape[1] :]
        said.append(base.tokenizer.decode(ids, skip_special_tokens=True).strip())
    rows = [Example(prompts[0], said[0]), Example(prompts[1], "something else")]
    for metric in ("exact_match", "chrf"):
        evaluator = LocalEvaluator(base, LoraSpace(pool, "exact"), metric, max_new_tokens=6)
        scores = await evaluator.score([one_hot(0, 3)], rows)
        np.testing.assert_allclose(scores.losses[0], metric_losses(metric, said, rows))
        assert scores.losses[0, 0] == pytest.approx(0.0)
        assert scores.losses[0, 1] > 0.5


@pytest.mark.parametrize("metric", ["cross_entropy", "choice_accuracy", "exact_match"])
async def test_a_broken_candidate_has_nan_and_the_others_have_not(
    base: BaseModel, pool: LoraPool, metric: str
) -> None:
    space = LoraSpace(pool, "factor")
    rows = [Example("Berlin is in", CHOICES[0], choices=CHOICES)]
    population = space.realise([one_hot(0, 3), one_hot(1, 3)])
    population.factors["model.layers.0.mlp.up_proj"].A[1] = float("nan")
    evaluator = LocalEvaluator(base, space, metric, max_new_tokens=4)
    scores = await evaluator.score_population(population, rows)
    assert np.isfinite(scores.losses[0]).all()
    assert np.isnan(scores.losses[1]).all()


async def test_the_base_alone_is_a_population_without_updates(
    base: BaseModel, pool: LoraPool, examples: Sequence[Example]
) -> None:
    evaluator = LocalEvaluator(base, LoraSpace(pool, "exact"))
    nothing = await evaluator.score_population(Population(1, {}), examples)
    zero = await evaluator.score([Candidate(np.ones((1, 3)), np.zeros((1, 3)))], examples)
    np.testing.assert_allclose(zero.losses, nothing.losses, atol=1e-6)


async def test_usage_counts_tokens_and_seconds(
    base: BaseModel, pool: LoraPool, examples: Sequence[Example]
) -> None:
    ticks = count()
    evaluator = LocalEvaluator(base, LoraSpace(pool, "exact"), clock=lambda: float(next(ticks)))
    scores = await evaluator.score([one_hot(0, 3)], examples)
    tokens = sum(len(f"{each.prompt} {each.completion}") + 1 for each in examples)
    assert (scores.usage.tokens, scores.usage.seconds) == (tokens, 1.0)


async def test_a_row_above_the_context_is_refused_before_anything_runs(
    base: BaseModel, pool: LoraPool
) -> None:
    evaluator = LocalEvaluator(base, LoraSpace(pool, "exact"))
    rows = [Example("a", "b", row=1), Example("x" * 300, "b", row=2)]
    for refused in (evaluator.check, evaluator.width):
        with pytest.raises(ContextOverflowError, match=r"row 2: .* 303 tokens.* 256"):
            refused(rows)
    with pytest.raises(ContextOverflowError, match="row 2"):
        await evaluator.score([one_hot(0, 3)], rows)
    cut = LocalEvaluator(base, LoraSpace(pool, "exact"), context_tokens=64)
    assert np.isfinite((await cut.score([one_hot(0, 3)], rows)).losses).all()


async def test_a_metric_that_does_not_suit_the_rows_is_refused(
    base: BaseModel, pool: LoraPool
) -> None:
    evaluator = LocalEvaluator(base, LoraSpace(pool, "exact"), "choice_accuracy")
    with pytest.raises(MetricError, match="row 5 has no choices"):
        evaluator.check([Example("a", "b", row=5)])
    with pytest.raises(MetricError, match="row 5 has no choices"):
        await evaluator.score([one_hot(0, 3)], [Example("a", "b", row=5)])


async def test_cancelling_stops_after_the_batch_that_runs(
    base: BaseModel, pool: LoraPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, entered = asyncio.get_running_loop(), asyncio.Event()
    go_on, ran = threading.Event(), []
    whole = forward._batch_nll

    def slow(*args: object) -> object:
        ran.append(args)
        loop.call_soon_threadsafe(entered.set)
        go_on.wait()
        return whole(*args)

    monkeypatch.setattr(forward, "_batch_nll", slow)
    evaluator = LocalEvaluator(base, LoraSpace(pool, "exact"), batch_tokens=1)
    rows = [Example("a", "b"), Example("c", "d"), Example("e", "f")]
    scoring = asyncio.create_task(evaluator.score([one_hot(0, 3)] * 4, rows))
    await entered.wait()
    scoring.cancel()
    await asyncio.sleep(0)
    assert not scoring.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await scoring
    assert len(ran) == 1
