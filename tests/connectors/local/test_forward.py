"""Losses of populations against transformers and peft, which know nothing of populations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from tests.support.populations import exact_population, factor_population, read_pairs, take
from tests.support.tiny import make_adapter
from transformers import AutoModelForCausalLM

from evomerge.connectors.local import adapters, forward
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import (
    ScoringCancelledError,
    ShapeError,
    UnknownModuleError,
)
from evomerge.connectors.local.forward import answer_nll
from evomerge.connectors.local.rows import Row, RowEncoder
from evomerge.evaluation.example import Example
from evomerge.merging.lora.population import Factors, Population

BETA = [[0.5, -0.3, 0.8], [0.0, 0.0, 0.0], [1.2, 0.4, -0.7], [0.0, 1.0, 0.0]]


@pytest.fixture(scope="module")
def rows(base: BaseModel, examples: Sequence[Example]) -> list[Row]:
    encoder = RowEncoder(base.tokenizer, base.context_tokens)
    return [encoder.scored(example) for example in examples]


def reference(model: torch.nn.Module, rows: Sequence[Row]) -> np.ndarray:
    """Mean answer cross-entropy of each row by transformers' own loss, one row at a time."""
    losses = []
    for row in rows:
        tokens = torch.tensor([row.tokens])
        labels = tokens.clone()
        labels[0, : row.start] = -100
        with torch.no_grad():
            losses.append(float(model(input_ids=tokens, labels=labels).loss))
    return np.array(losses)


def means(base: BaseModel, population: Population, rows: Sequence[Row], **kw: int) -> np.ndarray:
    nll = answer_nll(base, population, rows, batch_tokens=kw.get("batch_tokens", 4096))
    return nll / [row.scored for row in rows]


def plain(base_folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(base_folder, dtype=torch.float32).eval()


@pytest.fixture(params=["low rank", "dense"])
def road(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test that takes it runs on both roads of `adapters`."""
    dense = request.param == "dense"
    monkeypatch.setattr(adapters, "dense_is_cheaper", lambda **_: dense)
    return request.param


@pytest.mark.usefixtures("road")
def test_one_expert_has_the_loss_that_peft_gives(
    base: BaseModel, base_folder: Path, experts: list[Path], rows: list[Row]
) -> None:
    for folder in experts:
        adapted = PeftModel.from_pretrained(plain(base_folder), folder).eval()
        for compose in (factor_population, exact_population):
            found = means(base, compose([read_pairs(folder)], [[1.0]]), rows)
            np.testing.assert_allclose(found[0], reference(adapted, rows), atol=1e-5)


@pytest.mark.usefixtures("road")
def test_several_experts_have_the_loss_of_the_weights_merged_by_hand(
    base: BaseModel, base_folder: Path, experts: list[Path], rows: list[Row]
) -> None:
    pairs = [read_pairs(folder) for folder in experts]
    found = means(base, exact_population(pairs, BETA), rows)
    for beta, losses in zip(BETA, found, strict=True):
        model = plain(base_folder)
        for module in pairs[0]:
            update = sum(b * p[module][1] @ p[module][0] for b, p in zip(beta, pairs, strict=True))
            model.get_submodule(module).weight.data += update
        np.testing.assert_allclose(losses, reference(model, rows), atol=1e-5)


@pytest.mark.usefixtures("road")
@pytest.mark.parametrize("compose", [factor_population, exact_population])
def test_a_population_scores_as_each_of_its_candidates_alone(
    base: BaseModel, experts: list[Path], rows: list[Row], compose
) -> None:
    population = compose([read_pairs(folder) for folder in experts], BETA)
    together = means(base, population, rows)
    for index in range(population.size):
        alone = means(base, take(population, index), rows)
        np.testing.assert_allclose(together[index], alone[0], atol=1e-5)


def test_mixed_ranks_and_modules_that_only_some_experts_have(
    base: BaseModel, base_folder: Path, rows: list[Row], tmp_path: Path
) -> None:
    wide = make_adapter(tmp_path / "wide", base_folder, 7, rank=6, lora_alpha=3)
    narrow = make_adapter(tmp_path / "narrow", base_folder, 8, rank=1, modules=["q_proj"])
    pairs = [read_pairs(wide), read_pairs(narrow)]
    found = means(base, exact_population(pairs, [[1.0, 0.0], [0.0, 1.0]]), rows)
    for folder, losses in zip((wide, narrow), found, strict=True):
        adapted = PeftModel.from_pretrained(plain(base_folder), folder).eval()
        np.testing.assert_allclose(losses, reference(adapted, rows), atol=1e-5)


def test_how_the_work_is_cut_changes_no_loss(
    base: BaseModel, experts: list[Path], rows: list[Row]
) -> None:
    population = exact_population([read_pairs(folder) for folder in experts], BETA)
    whole = means(base, population, rows)
    total = sum(len(row.tokens) for row in rows)
    for batch_tokens in (1, 40, total, 2 * total, 3 * total):
        cut = means(base, population, rows, batch_tokens=batch_tokens)
        np.testing.assert_allclose(cut, whole, atol=1e-5)
    alone = np.column_stack([means(base, population, [row])[:, 0] for row in rows])
    np.testing.assert_allclose(alone, whole, atol=1e-5)


def test_the_same_call_gives_the_same_bits(
    base: BaseModel, experts: list[Path], rows: list[Row]
) -> None:
    population = factor_population([read_pairs(folder) for folder in experts], BETA)
    first = answer_nll(base, population, rows, batch_tokens=200)
    assert np.array_equal(first, answer_nll(base, population, rows, batch_tokens=200))


def test_rows_that_share_lines_lose_what_each_loses_alone(
    base: BaseModel, experts: list[Path], rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert base.packs
    seen = []
    hidden = BaseModel.hidden

    def watched(self: BaseModel, tokens: torch.Tensor, positions: torch.Tensor | None = None):
        seen.append((len(tokens), positions is not None))
        return hidden(self, tokens, positions)

    monkeypatch.setattr(BaseModel, "hidden", watched)
    population = factor_population([read_pairs(folder) for folder in experts], BETA)
    shared = means(base, population, rows * 3)
    apart = means(replace(base, packs=False), population, rows * 3)
    np.testing.assert_allclose(shared, apart, atol=1e-5)
    assert seen[0][0] < population.size * 3 * len(rows)
    assert [packed for _, packed in seen] == [True, *[False] * (len(seen) - 1)]


def test_projection_in_chunks_changes_no_bit_of_meaning(
    base: BaseModel, experts: list[Path], rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    population = exact_population([read_pairs(experts[0])], [[1.0], [0.5]])
    whole = answer_nll(base, population, rows, batch_tokens=4096)
    monkeypatch.setattr(forward, "_LOGITS_BYTES", 3 * 4 * base.projection.out_features)
    chunked = answer_nll(base, population, rows, batch_tokens=4096)
    np.testing.assert_allclose(chunked, whole, rtol=1e-6)


@pytest.mark.usefixtures("road")
def test_nan_weights_give_nan_to_their_candidate_alone(
    base: BaseModel, experts: list[Path], rows: list[Row]
) -> None:
    population = factor_population([read_pairs(folder) for folder in experts], BETA)
    healthy = means(base, population, rows)
    module = "model.layers.1.mlp.up_proj"
    population.factors[module].A[2, 0, 0] = float("nan")
    found = means(base, population, rows)
    assert np.isnan(found[2]).all()
    np.testing.assert_allclose(found[[0, 1, 3]], healthy[[0, 1, 3]], atol=1e-5)


def test_the_base_is_left_as_it_was(base: BaseModel, experts: list[Path], rows: list[Row]) -> None:
    before = dict(base.model.named_modules())
    weights = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    means(base, exact_population([read_pairs(experts[0])], [[1.0]]), rows)
    assert dict(base.model.named_modules()) == before
    assert all(
        torch.equal(weight, weights[name]) for name, weight in base.model.state_dict().items()
    )


def test_the_base_is_left_as_it_was_after_a_stop(
    base: BaseModel, experts: list[Path], rows: list[Row]
) -> None:
    answers = iter([False, True])
    population = exact_population([read_pairs(experts[0])], [[1.0], [2.0], [3.0]])
    with pytest.raises(ScoringCancelledError):
        answer_nll(base, population, rows, batch_tokens=1, stopped=lambda: next(answers))
    assert not any(isinstance(m, adapters.AdaptedLinear) for m in base.model.modules())


def test_a_population_for_another_base_is_refused_by_module(
    base: BaseModel, rows: list[Row]
) -> None:
    factors = Factors(torch.zeros(1, 2, 32), torch.zeros(1, 32, 2), None)
    stranger = Population(1, {"model.layers.9.self_attn.q_proj": factors})
    with pytest.raises(UnknownModuleError, match=r"layers\.9"):
        answer_nll(base, stranger, rows, batch_tokens=100)
    wrong = Population(1, {"model.layers.0.mlp.up_proj": factors})
    with pytest.raises(ShapeError, match=r"up_proj.*\(32, 32\).*\(48, 32\)"):
        answer_nll(base, wrong, rows, batch_tokens=100)
