"""Greedy answers against transformers' generate under peft."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.support.populations import exact_population, factor_population, read_pairs
from transformers import AutoModelForCausalLM

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import ScoringCancelledError
from evomerge.connectors.local.generation import greedy_answers
from evomerge.merging.lora.population import Population

TEXTS = ["Berlin is in", "a", "The capital of the largest country of Europe is", "2+2="]
ROOM = 12


@pytest.fixture
def prompts(base: BaseModel) -> list[tuple[int, ...]]:
    return [tuple(base.tokenizer(text).input_ids) for text in TEXTS]


def generated(
    base_folder: Path, adapter: Path, prompts: list[tuple[int, ...]], ends: list[int]
) -> list[list[int]]:
    model = AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(model, adapter).eval()
    found = []
    for prompt in prompts:
        tokens = torch.tensor([prompt])
        out = adapted.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=False,
            max_new_tokens=ROOM,
            eos_token_id=ends,
            pad_token_id=256,
        )
        found.append(out[0, len(prompt) :].tolist())
    return found


@pytest.mark.parametrize("batch_tokens", [1, 4096])
def test_answers_are_those_of_generate(
    base: BaseModel,
    base_folder: Path,
    experts: list[Path],
    prompts: list[tuple[int, ...]],
    batch_tokens: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = generated(base_folder, experts[0], prompts, [256])
    # A token that comes up ends answers early, some but not all.
    early = free[1][3]
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", [256, early])
    pairs = [read_pairs(folder) for folder in experts]
    population = exact_population(pairs, [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    answers = greedy_answers(
        base, population, prompts, max_new_tokens=ROOM, batch_tokens=batch_tokens
    )
    for folder, said in zip(experts, answers, strict=True):
        expected = generated(base_folder, folder, prompts, [256, early])
        texts = [base.tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in expected]
        assert [answer.text for answer in said] == texts
        assert [answer.tokens for answer in said] == [len(ids) for ids in expected]
        assert not any(answer.broken for answer in said)
    lengths = {answer.tokens for said in answers for answer in said}
    assert len(lengths) > 1


def test_a_candidate_with_nan_weights_is_told_of_as_broken(
    base: BaseModel, experts: list[Path], prompts: list[tuple[int, ...]]
) -> None:
    pairs = [read_pairs(folder) for folder in experts[:2]]
    population = factor_population(pairs, [[1.0, 0.0], [0.0, 1.0]])
    population.factors["model.layers.0.mlp.up_proj"].A[1] = float("nan")
    good, bad = greedy_answers(base, population, prompts, max_new_tokens=3, batch_tokens=4096)
    assert not any(answer.broken for answer in good)
    assert all(answer.broken for answer in bad)


def test_stops_between_two_tokens(base: BaseModel, prompts: list[tuple[int, ...]]) -> None:
    asked = iter([False, False, True])
    with pytest.raises(ScoringCancelledError):
        greedy_answers(
            base,
            Population(1, {}),
            prompts,
            max_new_tokens=50,
            batch_tokens=4096,
            stopped=lambda: next(asked),
        )
