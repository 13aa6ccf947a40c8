"""The rules against PEFT's own on the same tensors, and what every rule has in common."""

import peft.utils.merge_utils as theirs
import pytest
import torch

from evomerge.merging.operators.combine import Election
from evomerge.merging.operators.rules import (
    Breadcrumbs,
    DareLinear,
    DareTies,
    Della,
    Emr,
    Rule,
    TaskArithmetic,
    Ties,
)

RULES: list[Rule] = [
    TaskArithmetic(),
    Ties(),
    DareLinear(),
    DareTies(),
    Della(),
    Breadcrumbs(),
    Emr(),
]
EVERY = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)


@pytest.fixture
def stack() -> torch.Tensor:
    return torch.randn(4, 12, 20, generator=torch.Generator().manual_seed(1))


def a_generator(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def merged(rule: Rule, stack: torch.Tensor, density: float, scale: float) -> torch.Tensor:
    """The same density and weight for every expert, as published."""
    each = torch.ones(stack.shape[0], dtype=torch.float64)
    return rule.merge(stack, density * each, scale * each, a_generator())


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_task_arithmetic_is_pefts(stack: torch.Tensor, scale: float) -> None:
    expected = theirs.task_arithmetic(list(stack), torch.full((4,), scale))
    assert torch.allclose(merged(TaskArithmetic(), stack, 1.0, scale), expected)


@pytest.mark.parametrize("density", [0.2, 0.55, 0.9])
@pytest.mark.parametrize("election", ["total", "frequency"])
def test_ties_is_pefts(stack: torch.Tensor, density: float, election: Election) -> None:
    expected = theirs.ties(list(stack), torch.full((4,), 0.7), density, election)
    assert torch.allclose(merged(Ties(election), stack, density, 0.7), expected)


@pytest.mark.parametrize(
    ("rule", "peft"), [(DareLinear(), "dare_linear"), (DareTies(), "dare_ties")]
)
def test_dare_is_pefts_on_the_same_draws(stack: torch.Tensor, rule: Rule, peft: str) -> None:
    """PEFT draws from torch's global generator, expert by expert; so do we, from one passed in."""
    torch.manual_seed(5)
    expected = getattr(theirs, peft)(list(stack), torch.full((4,), 0.7), 0.6)
    assert torch.allclose(merged(rule, stack, 0.6, 0.7), expected, atol=1e-6)


@EVERY
def test_weights_scale_the_merge(rule: Rule, stack: torch.Tensor) -> None:
    assert torch.allclose(merged(rule, stack, 0.5, 0.5), 0.5 * merged(rule, stack, 0.5, 1.0))


@EVERY
def test_a_rule_keeps_shape_and_dtype(rule: Rule, stack: torch.Tensor) -> None:
    for kind in (torch.float32, torch.float64, torch.bfloat16):
        whole = merged(rule, stack.to(kind), 0.5, 1.0)
        assert whole.shape == stack.shape[1:]
        assert whole.dtype == kind
        assert bool(whole.isfinite().all())
    assert merged(rule, stack[:, 0], 0.5, 1.0).shape == (20,)


@EVERY
def test_experts_that_did_nothing_merge_to_nothing(rule: Rule) -> None:
    assert not merged(rule, torch.zeros(3, 4, 4), 0.5, 1.0).any()


@EVERY
def test_one_expert_kept_whole_is_that_expert(rule: Rule, stack: torch.Tensor) -> None:
    if isinstance(rule, Breadcrumbs):
        rule = Breadcrumbs(gamma=0.0)
    assert torch.allclose(merged(rule, stack[:1], 1.0, 1.0), stack[0])


@EVERY
def test_a_rule_draws_from_its_generator_alone(rule: Rule, stack: torch.Tensor) -> None:
    state = torch.get_rng_state()
    first = merged(rule, stack, 0.5, 1.0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(first, merged(rule, stack, 0.5, 1.0))
