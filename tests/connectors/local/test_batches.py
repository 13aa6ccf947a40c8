"""Cutting rows into batches."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from evomerge.connectors.local.batches import _BATCH_COST, batches, width

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=40)


def cost(lengths: list[int], cut: list[list[int]]) -> int:
    return sum(len(batch) * max(lengths[row] for row in batch) + _BATCH_COST for batch in cut)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 2000))
def test_every_row_stands_once_and_batches_keep_to_the_budget(
    lengths: list[int], candidates: int, budget: int
) -> None:
    cut = batches(lengths, candidates, budget)
    assert sorted(row for batch in cut for row in batch) == list(range(len(lengths)))
    for batch in cut:
        padded = candidates * len(batch) * max(lengths[row] for row in batch)
        assert padded <= budget or len(batch) == 1


@given(st.lists(st.integers(1, 300), min_size=1, max_size=7), st.integers(1, 1200))
def test_no_other_cut_of_the_sorted_rows_is_cheaper(lengths: list[int], budget: int) -> None:
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    best = float("inf")
    for count in range(len(order)):
        for ends in combinations(range(1, len(order)), count):
            bounds = [0, *ends, len(order)]
            cut = [order[a:b] for a, b in pairwise(bounds)]
            if all(len(b) * lengths[b[0]] <= budget or len(b) == 1 for b in cut):
                best = min(best, cost(lengths, cut))
    assert cost(lengths, batches(lengths, 1, budget)) == best


def test_rows_of_one_length_are_not_parted_without_need() -> None:
    assert batches([10] * 6, 1, 60) == [[0, 1, 2, 3, 4, 5]]
    assert [len(batch) for batch in batches([10] * 6, 2, 60)] == [3, 3]


def test_long_rows_are_parted_from_short_ones() -> None:
    assert batches([10, 900, 11, 905], 1, 4096) == [[3, 1], [2, 0]]


def test_width_is_what_fits_and_never_nothing() -> None:
    assert [width(total, 100) for total in (1, 33, 50, 51, 100, 101, 10_000)] == [
        100, 3, 2, 1, 1, 1, 1,
    ]  # fmt: skip
