"""Both compositions against loops over the experts, written out."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge.merging.errors import CandidateError
from evomerge.merging.lora.adapter import LoraAdapter
from evomerge.merging.lora.pool import LoraPool, stack_adapters
from evomerge.merging.lora.population import Population
from evomerge.merging.lora.space import Composition, LoraSpace
from evomerge.merging.lora.sparsify import sparsify
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

COMPOSITIONS: tuple[Composition, ...] = ("factor", "exact")
EXPERTS = 4


def naive(
    composition: Composition,
    adapters: list[LoraAdapter],
    module: str,
    alpha: np.ndarray,
    beta: np.ndarray,
) -> Tensor:
    """The dense update of one module, straight from the definition; alpha and beta are (N,)."""
    rank = max(a.modules[module][0].shape[0] for a in adapters if module in a.modules)
    total: list[Tensor] = []
    sum_a: list[Tensor] = []
    sum_b: list[Tensor] = []
    for adapter, keep, weight in zip(adapters, alpha, beta, strict=True):
        if module in adapter.modules:
            a, b = adapter.modules[module]
            a = sparsify(a, float(keep)).double()
            padding = rank - a.shape[0]
            total.append(weight * b.double() @ a)
            sum_a.append(weight * torch.nn.functional.pad(a, (0, 0, 0, padding)))
            sum_b.append(weight * torch.nn.functional.pad(b.double(), (0, padding)))
    if composition == "exact":
        return torch.stack(total).sum(0)
    return torch.stack(sum_b).sum(0) @ torch.stack(sum_a).sum(0)


def assert_is_naive(
    space: LoraSpace,
    adapters: list[LoraAdapter],
    candidates: list[Candidate],
    population: Population,
) -> None:
    assert population.size == len(candidates)
    for module in space.pool.modules:
        for index, candidate in enumerate(candidates):
            alpha, beta = candidate.alpha[module.group], candidate.beta[module.group]
            expected = naive(space.composition, adapters, module.name, alpha, beta).float()
            if module.name in population.factors:
                update = population.update(module.name, index)
                torch.testing.assert_close(update, expected, rtol=1e-4, atol=1e-5)
            else:
                assert not expected.any()


def draw(
    seed: int, count: int, groups: int, *, same_alpha: bool = False, sparse: bool = False
) -> list[Candidate]:
    random = np.random.default_rng(seed)
    shape = (groups, EXPERTS)
    shared = random.random(shape)
    used = random.random(shape) < 0.5 if sparse else np.ones(shape)
    return [
        Candidate(
            shared if same_alpha else random.random(shape), random.standard_normal(shape) * used
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("composition", COMPOSITIONS)
@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 1 << 32),
    count=st.integers(1, 3),
    groups=st.integers(1, 3),
    same_alpha=st.booleans(),
    same_beta=st.booleans(),
    sparse=st.booleans(),
)
def test_every_update_is_that_of_the_definition(
    composition: Composition,
    adapters: list[LoraAdapter],
    seed: int,
    count: int,
    groups: int,
    same_alpha: bool,
    same_beta: bool,
    sparse: bool,
) -> None:
    space = LoraSpace(stack_adapters(adapters, groups), composition)
    candidates = draw(seed, count, groups, same_alpha=same_alpha, sparse=sparse)
    if same_beta:
        candidates = [Candidate(c.alpha, candidates[0].beta) for c in candidates]
    assert_is_naive(space, adapters, candidates, space.realise(candidates))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_torch_takes_the_types_that_the_kernels_do_not(
    composition: Composition, dtype: torch.dtype, adapters: list[LoraAdapter]
) -> None:
    kernels = LoraSpace(stack_adapters(adapters), composition)
    fallback = LoraSpace(stack_adapters(adapters, dtype=dtype), composition)
    tolerance = 1e-5 if dtype == torch.float64 else 0.1
    for same_alpha in (False, True):
        candidates = draw(5, 3, 1, same_alpha=same_alpha)
        expected, found = kernels.realise(candidates), fallback.realise(candidates)
        for module, factors in found.factors.items():
            assert factors.A.dtype == factors.B.dtype == torch.float32
            for index in range(3):
                torch.testing.assert_close(
                    found.update(module, index),
                    expected.update(module, index),
                    rtol=tolerance,
                    atol=tolerance,
                )


@pytest.fixture(scope="module")
def pool(adapters: list[LoraAdapter]) -> LoraPool:
    return stack_adapters(adapters, groups=2)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_a_change_of_alpha_is_never_answered_from_the_last_one(
    composition: Composition, pool: LoraPool, adapters: list[LoraAdapter]
) -> None:
    space = LoraSpace(pool, composition)
    for seed in (1, 2, 1):
        candidates = draw(seed, 2, 2, same_alpha=True)
        assert_is_naive(space, adapters, candidates, space.realise(candidates))
        whole = [uniform(EXPERTS, 2)]
        assert_is_naive(space, adapters, whole, space.realise(whole))


def test_spaces_over_one_pool_may_take_turns(pool: LoraPool, adapters: list[LoraAdapter]) -> None:
    """One alpha for all lets the places by magnitude go; who needs them has them made again."""
    spaces = [LoraSpace(pool, composition) for composition in COMPOSITIONS]
    for same_alpha in (False, True, False):
        candidates = draw(1, 2, 2, same_alpha=same_alpha)
        for space in spaces:
            assert_is_naive(space, adapters, candidates, space.realise(candidates))


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_one_group_of_layers_leaves_the_others_alone(
    composition: Composition, pool: LoraPool, adapters: list[LoraAdapter]
) -> None:
    candidate = one_hot(0, EXPERTS, 2)
    candidate.beta[0] = 0.0
    population = LoraSpace(pool, composition).realise([candidate])
    assert set(population.factors) == {m.name for m in pool.modules if m.group == 1}


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("expert", range(EXPERTS))
def test_one_expert_alone_is_that_expert(
    composition: Composition, expert: int, pool: LoraPool, adapters: list[LoraAdapter]
) -> None:
    population = LoraSpace(pool, composition).realise([one_hot(expert, EXPERTS, 2)])
    for module, (a, b) in adapters[expert].modules.items():
        torch.testing.assert_close(population.update(module, 0), b @ a)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_no_weight_at_all_is_the_base(composition: Composition, pool: LoraPool) -> None:
    population = LoraSpace(pool, composition).realise([base(EXPERTS, 2), base(EXPERTS, 2)])
    assert population.size == 2
    assert not population.factors


def test_only_exact_knows_the_sign(pool: LoraPool) -> None:
    plus = one_hot(1, EXPERTS, 2)
    minus = Candidate(plus.alpha, -plus.beta)
    for composition, sign in (("factor", 1), ("exact", -1)):
        population = LoraSpace(pool, composition).realise([plus, minus])
        module = pool.modules[0].name
        torch.testing.assert_close(
            population.update(module, 1), sign * population.update(module, 0)
        )


def test_exact_shares_what_candidates_agree_on(pool: LoraPool) -> None:
    space = LoraSpace(pool, "exact")
    module = "model.layers.0.self_attn.q_proj"
    for same, leading in ((True, 1), (False, 3)):
        factors = space.realise(draw(1, 3, 2, same_alpha=same)).factors[module]
        # Of ranks 4, 4 and 6; the expert that does not adapt the module has no rows.
        assert factors.A.shape == (leading, 14, 32)
        assert factors.B.shape == (1, 32, 14)
        assert factors.scale is not None
        assert factors.scale.shape == (3, 14)


def test_factor_shares_b_where_only_alpha_differs(pool: LoraPool) -> None:
    """As in stage 1, group by group."""
    candidates = draw(1, 3, 2)
    for candidate in candidates:
        candidate.beta[0] = 1 / EXPERTS
    factors = LoraSpace(pool, "factor").realise(candidates).factors
    for module in pool.modules:
        assert factors[module.name].A.shape[0] == 3
        assert factors[module.name].B.shape[0] == (1 if module.group == 0 else 3)


def test_exact_leaves_out_experts_without_weight(pool: LoraPool) -> None:
    candidates = draw(1, 2, 2)
    for candidate in candidates:
        candidate.beta[:, 0] = 0.0
        candidate.alpha[:, 3] = 0.0
    factors = LoraSpace(pool, "exact").realise(candidates).factors
    assert factors["model.layers.0.self_attn.q_proj"].rank == 4


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("same_alpha", [False, True])
def test_bits_do_not_depend_on_threads(
    composition: Composition, same_alpha: bool, adapters: list[LoraAdapter]
) -> None:
    candidates = draw(9, 3, 1, same_alpha=same_alpha)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            # A fresh pool each, so that places by magnitude are made by those threads too.
            found.append(LoraSpace(stack_adapters(adapters), composition).realise(candidates))
    finally:
        torch.set_num_threads(before)
    for one, other in pairwise(found):
        for module, factors in one.factors.items():
            assert torch.equal(factors.A, other.factors[module].A)
            assert torch.equal(factors.B, other.factors[module].B)


@pytest.mark.parametrize(
    ("candidates", "reason"),
    [
        ([], "population: is empty"),
        ([base(EXPERTS)], r"alpha: of shape \(1, 4\)"),
        ([base(3, 2)], r"alpha: of shape \(2, 3\)"),
        ([Candidate(np.ones((2, EXPERTS)), np.ones((2, 3)))], r"beta: of shape \(2, 3\)"),
        ([Candidate(np.full((2, EXPERTS), 1.1), np.ones((2, EXPERTS)))], "alpha: has values"),
        ([Candidate(np.full((2, EXPERTS), np.nan), np.ones((2, EXPERTS)))], "alpha: has values"),
        ([Candidate(np.ones((2, EXPERTS)), np.full((2, EXPERTS), np.inf))], "beta: has values"),
    ],
)
def test_refuses_candidates_that_do_not_fit(
    pool: LoraPool, candidates: list[Candidate], reason: str
) -> None:
    with pytest.raises(CandidateError, match=reason):
        LoraSpace(pool, "exact").realise(candidates)


def test_a_population_names_what_it_does_not_have(pool: LoraPool) -> None:
    population = LoraSpace(pool, "exact").realise([uniform(EXPERTS, 2)])
    with pytest.raises(IndexError, match="candidate 1"):
        population.update(pool.modules[0].name, 1)
    with pytest.raises(KeyError):
        population.update("lm_head", 0)
