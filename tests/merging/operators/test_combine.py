import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merging.operators.combine import (
    elected_largest,
    elected_mean,
    task_masks,
    weighted_sum,
)
from evomerge.merging.operators.errors import OperatorSettingError, StackError


def test_a_sum_by_hand() -> None:
    stack = torch.tensor([[1.0, 2.0], [10.0, -20.0]])
    assert weighted_sum(stack, torch.tensor([2.0, -0.5])).tolist() == [-3.0, 14.0]


def test_an_elected_mean_by_hand() -> None:
    stack = torch.tensor([[1.0, 3.0, 0.0, -1.0], [2.0, -1.0, 0.0, -2.0], [-9.0, 2.0, 0.0, 3.0]])
    ones = torch.ones(3)
    # Sums -6, 4, 0, 0: the last two are nobody's majority, and count as positive.
    assert elected_mean(stack, ones).tolist() == [-9.0, 2.5, 0.0, 3.0]
    # Two positive against one negative; two against one; none; one against two.
    assert elected_mean(stack, ones, "frequency").tolist() == [1.5, 2.5, 0.0, -1.5]


def test_a_negative_weight_votes_for_the_other_sign() -> None:
    stack = torch.tensor([[1.0], [1.0], [4.0]])
    assert elected_mean(stack, torch.tensor([1.0, 1.0, -1.0])).tolist() == [-4.0]
    assert elected_mean(stack, torch.tensor([1.0, 1.0, -1.0]), "frequency").tolist() == [1.0]


@given(seed=st.integers(0, 100), experts=st.integers(1, 5))
def test_elected_means_do_not_depend_on_the_order(seed: int, experts: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stack = torch.randn(experts, 4, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(experts, generator=generator, dtype=torch.float64)
    order = torch.randperm(experts, generator=generator)
    assert torch.allclose(elected_mean(stack, weights), elected_mean(stack[order], weights[order]))


@given(seed=st.integers(0, 100), experts=st.integers(1, 5))
def test_a_unified_vector_has_the_elected_sign_and_the_largest_magnitude(
    seed: int, experts: int
) -> None:
    stack = torch.randn(experts, 30, generator=torch.Generator().manual_seed(seed))
    unified = elected_largest(stack)
    for column, value in zip(stack.T, unified, strict=True):
        sign = torch.sign(column.sum())
        assert torch.sign(value) == sign
        assert value.abs() == max(v.abs() for v in column if torch.sign(v) == sign)


def test_one_expert_alone_comes_out_whole() -> None:
    stack = torch.randn(1, 5, 5, generator=torch.Generator().manual_seed(0))
    unified = elected_largest(stack)
    masks, rescalers = task_masks(stack, unified)
    assert torch.equal(unified, stack[0])
    assert rescalers.tolist() == pytest.approx([1.0])
    assert torch.equal(masks[0], stack[0] != 0)


def test_a_masked_and_rescaled_vector_has_its_experts_magnitude() -> None:
    stack = torch.randn(4, 50, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    unified = elected_largest(stack)
    masks, rescalers = task_masks(stack, unified)
    again = rescalers[:, None] * masks * unified
    assert torch.allclose(again.abs().sum(dim=1), stack.abs().sum(dim=1))
    assert bool(((again == 0) | (again.sign() == stack.sign())).all())


def test_what_does_not_belong_together_is_refused() -> None:
    stack = torch.ones(3, 2)
    with pytest.raises(StackError, match=r"\(2,\).*\(3, 2\)"):
        weighted_sum(stack, torch.ones(2))
    with pytest.raises(OperatorSettingError, match="election='loudest'"):
        elected_mean(stack, torch.ones(3), "loudest")  # type: ignore[arg-type]
