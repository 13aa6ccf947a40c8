import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merging.operators.errors import OperatorSettingError, StackError
from evomerge.merging.operators.trim import (
    drop_by_rank,
    drop_outliers,
    drop_random,
    keep_largest,
)


def a_stack(seed: int = 0, experts: int = 3, shape: tuple[int, ...] = (8, 16)) -> torch.Tensor:
    return torch.randn((experts, *shape), generator=torch.Generator().manual_seed(seed))


def each(stack: torch.Tensor, density: float) -> torch.Tensor:
    """The same density for every expert."""
    return torch.full(stack.shape[:1], density, dtype=torch.float64)


@given(density=st.floats(0.0, 1.0), seed=st.integers(0, 50))
def test_what_is_kept_is_larger_than_all_that_is_dropped(density: float, seed: int) -> None:
    stack = a_stack(seed)
    kept = keep_largest(stack, each(stack, density))
    for before, after in zip(stack.flatten(1), kept.flatten(1), strict=True):
        stays = after != 0
        assert int(stays.sum()) == int(density * before.numel())
        assert torch.equal(after[stays], before[stays])
        if stays.any() and not stays.all():
            assert before[stays].abs().min() >= before[~stays].abs().max()


def test_a_density_of_one_changes_nothing() -> None:
    stack, generator = a_stack(), torch.Generator().manual_seed(1)
    assert torch.equal(keep_largest(stack, each(stack, 1.0)), stack)
    assert torch.equal(drop_random(stack, each(stack, 1.0), generator), stack)
    assert torch.equal(drop_by_rank(stack, each(stack, 1.0), 0.0, generator), stack)
    assert torch.equal(drop_outliers(stack, each(stack, 1.0), 0.0), stack)


def test_dropping_at_random_keeps_the_expectation() -> None:
    ones = torch.ones(2, 200_000)
    kept = drop_random(ones, each(ones, 0.3), torch.Generator().manual_seed(3))
    assert kept.unique().tolist() == pytest.approx([0.0, 1 / 0.3], abs=1e-6)
    # Five standard errors of a mean of 200,000 draws of variance (1 - p) / p.
    assert kept.mean(dim=1) == pytest.approx(1.0, abs=5 * (0.7 / 0.3 / 200_000) ** 0.5)


def test_the_same_generator_drops_the_same() -> None:
    first = drop_random(a_stack(), each(a_stack(), 0.5), torch.Generator().manual_seed(4))
    again = drop_random(a_stack(), each(a_stack(), 0.5), torch.Generator().manual_seed(4))
    assert torch.equal(first, again)


def test_large_entries_are_likelier_to_stay() -> None:
    rising = torch.arange(1.0, 11.0).repeat(1, 20_000, 1)
    kept = drop_by_rank(rising, each(rising, 0.5), 0.3, torch.Generator().manual_seed(5))
    share = (kept != 0).float().mean(dim=(0, 1))
    expected = torch.linspace(0.2, 0.8, 10)
    assert torch.allclose(share, expected, atol=5 * (0.25 / 20_000) ** 0.5)
    assert torch.allclose(kept.mean(dim=(0, 1)), torch.arange(1.0, 11.0), rtol=0.1)


@given(
    density=st.floats(0.0, 1.0),
    gamma=st.floats(0.0, 0.5),
    values=st.lists(st.integers(-2, 2), min_size=1, max_size=40),
    kind=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
def test_of_equals_the_first_are_kept(
    density: float, gamma: float, values: list[int], kind: torch.dtype
) -> None:
    """As a stable sort by falling magnitude has it; whole numbers have many equals."""
    stack = torch.tensor([values], dtype=kind)
    places = sorted(range(len(values)), key=lambda place: -abs(values[place]))
    first, count = int(gamma * len(values)), int(density * len(values))
    kept = torch.zeros_like(stack)
    kept[0, places[first : first + count]] = stack[0, places[first : first + count]]
    assert torch.equal(drop_outliers(stack, each(stack, density), gamma), kept)
    largest = torch.zeros_like(stack)
    largest[0, places[:count]] = stack[0, places[:count]]
    assert torch.equal(keep_largest(stack, each(stack, density)), largest)


def test_outliers_go_first_and_then_the_smallest() -> None:
    stack = torch.tensor([[10.0, -9.0, 8.0, -7.0, 6.0, -5.0, 4.0, -3.0, 2.0, -1.0]])
    kept = drop_outliers(stack, each(stack, 0.5), 0.2)
    assert kept.tolist() == [[0, 0, 8, -7, 6, -5, 4, 0, 0, 0]]
    assert drop_outliers(stack, each(stack, 0.9), 0.2).tolist() == [
        [0, 0, 8, -7, 6, -5, 4, -3, 2, -1]
    ]


@pytest.mark.parametrize("density", [-0.1, 1.1])
def test_a_density_that_is_none_is_named(density: float) -> None:
    with pytest.raises(OperatorSettingError, match=f"density={density}"):
        keep_largest(a_stack(), each(a_stack(), density))


def test_settings_that_are_none_are_named() -> None:
    with pytest.raises(OperatorSettingError, match=r"epsilon=-0\.3"):
        drop_by_rank(a_stack(), each(a_stack(), 0.8), -0.3, torch.Generator())
    with pytest.raises(OperatorSettingError, match=r"gamma=1\.0"):
        drop_outliers(a_stack(), each(a_stack(), 0.8), 1.0)
    with pytest.raises(StackError, match=r"\(0, 4\)"):
        keep_largest(torch.empty(0, 4), torch.empty(0))


def test_every_expert_has_a_density_of_its_own() -> None:
    stack = torch.ones(3, 1000)
    density = torch.tensor([0.0, 0.5, 1.0])
    generator = torch.Generator().manual_seed(7)
    assert (keep_largest(stack, density) != 0).sum(dim=1).tolist() == [0, 500, 1000]
    assert (drop_outliers(stack, density, 0.1) != 0).sum(dim=1).tolist() == [0, 500, 900]
    for dropped in (
        drop_random(stack, density, generator),
        drop_by_rank(stack, density, 0.2, generator),
    ):
        assert bool(dropped.isfinite().all())
        assert not dropped[0].any()
        assert 400 < int((dropped[1] != 0).sum()) < 600
        assert torch.equal(dropped[2], stack[2])


def test_a_spread_that_does_not_fit_is_narrowed() -> None:
    kept = drop_by_rank(torch.ones(1, 4, 1000), torch.tensor([0.9]), 0.5, torch.Generator())
    assert float(kept.max()) <= 1 / 0.8 + 1e-6
