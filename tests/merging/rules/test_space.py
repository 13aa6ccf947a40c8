"""Merging rules over pools: against the operators on task vectors that were made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.elms import make_elm, tensors_of
from tests.support.tiny import make_adapter, make_base
from tests.support.tiny_model import delta, read_factors
from torch import Tensor

from evomerge.merging.checkpoint.errors import CheckpointError
from evomerge.merging.checkpoint.files import read_checkpoint
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.checkpoint.writing import write_checkpoint
from evomerge.merging.errors import CandidateError
from evomerge.merging.lora.pool import LoraPool, stack_folders
from evomerge.merging.operators.rules import (
    Breadcrumbs,
    DareTies,
    Della,
    Emr,
    Rule,
    TaskArithmetic,
    Ties,
)
from evomerge.merging.rules.space import RuleSpace, is_alone
from evomerge.merging.rules.vectors import ElmVectors, LoraVectors
from evomerge.optimizers import Candidate
from evomerge.optimizers.candidate import base, one_hot, uniform

EXPERTS = 3
STILL = [TaskArithmetic(), Ties(), Ties("frequency"), Breadcrumbs(0.05), Emr()]
DRAWN = [DareTies(), Della(0.2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("rules")
    weights = make_base(made / "base")
    for number in range(EXPERTS):
        make_adapter(made / f"e{number}", weights, seed=number)
        make_elm(made / f"m{number}", weights, number, strength=0.1)
    return made


@pytest.fixture(scope="module")
def pool(folder: Path) -> LoraPool:
    return stack_folders([folder / f"e{number}" for number in range(EXPERTS)])


def over_adapters(folder: Path, pool: LoraPool, rule: Rule, seed: int = 7) -> RuleSpace:
    return RuleSpace(read_checkpoint(folder / "base"), LoraVectors(pool), rule, seed)


def over_elms(folder: Path, rule: Rule, seed: int = 7) -> RuleSpace:
    elms = [read_checkpoint(folder / f"m{number}") for number in range(EXPERTS)]
    space = CheckpointSpace(read_checkpoint(folder / "base"), elms)
    return RuleSpace(space.seed, ElmVectors(space), rule, seed)


def filled(space: RuleSpace, candidate: Candidate) -> dict[str, Tensor]:
    targets = {name: torch.empty(entry.shape) for name, entry in space.seed.tensors.items()}
    space.fill(candidate, targets)
    return targets


def candidate(density: float, weights: list[float]) -> Candidate:
    return Candidate(np.full((1, EXPERTS), density), np.array([weights]))


@pytest.mark.parametrize("rule", STILL, ids=lambda rule: rule.name)
def test_adapters_are_merged_as_dense_task_vectors(
    folder: Path, pool: LoraPool, rule: Rule
) -> None:
    given_ = candidate(0.6, [0.5, 0.0, 0.5])
    merged = filled(over_adapters(folder, pool, rule), given_)
    before = tensors_of(folder / "base")
    deltas = [delta(read_factors(folder / f"e{number}")) for number in (0, 2)]
    for name, value in before.items():
        module = name.removesuffix(".weight")
        expected = value.float()
        if module in deltas[0]:
            stack = torch.stack([one[module] for one in deltas])
            density, weights = torch.full((2,), 0.6), torch.full((2,), 0.5)
            expected = expected + rule.merge(stack, density, weights, torch.Generator())
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rule", STILL, ids=lambda rule: rule.name)
def test_elms_are_merged_in_every_float_tensor(folder: Path, rule: Rule) -> None:
    merged = filled(over_elms(folder, rule), candidate(0.6, [0.3, 0.3, 0.3]))
    before = tensors_of(folder / "base")
    own = [tensors_of(folder / f"m{number}") for number in range(EXPERTS)]
    for name, value in before.items():
        stack = torch.stack([each[name].float() - value.float() for each in own])
        density, weights = torch.full((EXPERTS,), 0.6), torch.full((EXPERTS,), 0.3)
        expected = value.float() + rule.merge(stack, density, weights, torch.Generator())
        torch.testing.assert_close(merged[name], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rule", DRAWN, ids=lambda rule: rule.name)
def test_draws_depend_on_the_seed_and_the_tensor_alone(
    folder: Path, pool: LoraPool, rule: Rule
) -> None:
    wanted = candidate(0.5, [0.7, 0.7, 0.0])
    first = filled(over_adapters(folder, pool, rule), wanted)
    space = over_adapters(folder, pool, rule)
    filled(space, candidate(0.9, [0.1, 0.2, 0.3]))
    again = filled(space, wanted)
    other = filled(over_adapters(folder, pool, rule, seed=8), wanted)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@settings(max_examples=15, deadline=None)
@given(
    factor=st.floats(0.01, 3.0), density=st.floats(0.05, 1.0), rule=st.sampled_from(STILL + DRAWN)
)
def test_a_common_factor_scales_what_is_added(
    folder: Path, pool: LoraPool, factor: float, density: float, rule: Rule
) -> None:
    """What is kept of one scale serves all: the same as if it had been merged anew."""
    one = over_adapters(folder, pool, rule).updates(candidate(density, [1.0, 0.5, 0.25]))
    space = over_adapters(folder, pool, rule)
    space.updates(candidate(density, [2.0, 1.0, 0.5]))
    scaled = space.updates(candidate(density, [factor, factor * 0.5, factor * 0.25]))
    for name, update in one.items():
        torch.testing.assert_close(scaled[name], factor * update, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rule", STILL + DRAWN, ids=lambda rule: rule.name)
def test_an_expert_alone_is_itself(folder: Path, rule: Rule) -> None:
    merged = filled(over_elms(folder, rule), one_hot(1, EXPERTS))
    for name, value in tensors_of(folder / "m1").items():
        torch.testing.assert_close(merged[name], value.float(), atol=1e-6, rtol=1e-5)


def test_who_is_alone() -> None:
    assert is_alone(one_hot(0, 3))
    assert is_alone(base(3))
    assert not is_alone(uniform(3))
    assert not is_alone(candidate(0.5, [1.0, 0.0, 0.0]))


def test_the_base_comes_back(folder: Path, pool: LoraPool) -> None:
    space = over_adapters(folder, pool, Ties())
    targets = filled(space, uniform(EXPERTS))
    space.fill_seed(targets)
    nothing = filled(space, base(EXPERTS))
    for name, value in tensors_of(folder / "base").items():
        assert torch.equal(targets[name], value.float())
        assert torch.equal(nothing[name], value.float())


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_what_is_written_is_what_is_filled(
    folder: Path, pool: LoraPool, tmp_path: Path, dtype: torch.dtype | None
) -> None:
    space = over_adapters(folder, pool, Della())
    wanted = candidate(0.7, [0.5, 0.5, 0.5])
    write_checkpoint(space.recipe(wanted, dtype, None), tmp_path / "out")
    targets = {name: torch.empty(entry.shape) for name, entry in space.seed.tensors.items()}
    space.fill(wanted, targets, dtype or "seed")
    for name, value in tensors_of(tmp_path / "out").items():
        assert dtype in (None, value.dtype)
        assert torch.equal(value.float(), targets[name])


def test_a_candidate_for_another_pool_is_refused(folder: Path, pool: LoraPool) -> None:
    with pytest.raises(CandidateError):
        over_adapters(folder, pool, Ties()).updates(uniform(EXPERTS + 1))


def test_a_base_that_lacks_a_weight_is_refused(
    folder: Path, pool: LoraPool, tmp_path: Path
) -> None:
    other = make_base(tmp_path / "narrow", hidden=16)
    with pytest.raises(CheckpointError, match="the update"):
        RuleSpace(read_checkpoint(other), LoraVectors(pool), Ties(), 1)
