"""Cutting rows into batches."""

from __future__ import annotations

from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st

from evomerge.connectors.local.batches import _BATCH_COST, batches, lines, width

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


@given(LENGTHS, st.integers(0, 400))
def test_every_row_stands_in_one_line_and_lines_keep_to_their_room(
    lengths: list[int], room: int
) -> None:
    made = lines(lengths, room)
    assert sorted(row for line in made for row in line) == list(range(len(lengths)))
    for line in made:
        assert sum(lengths[row] for row in line) <= room or len(line) == 1


@given(LENGTHS, st.integers(1, 400))
def test_lines_that_rows_share_are_half_full_on_average(lengths: list[int], room: int) -> None:
    short = [length for length in lengths if length <= room]
    shared = [line for line in lines(lengths, room) if lengths[line[0]] <= room]
    assert len(shared) <= 2 * sum(short) / room + 1


def test_lines_are_as_even_as_their_number_allows() -> None:
    assert lines([40, 30, 30, 20, 20, 20], 100) == [[0, 1, 3], [2, 4, 5]]
    assert [len(line) for line in lines([10] * 12, 70)] == [6, 6]


def test_a_long_row_has_a_line_of_its_own_and_without_room_all_have() -> None:
    assert lines([10, 200, 10], 96) == [[1], [0, 2]]
    assert lines([10] * 3, 0) == [[0], [1], [2]]


def test_width_is_what_fits_and_never_nothing() -> None:
    assert [width(total, 100) for total in (1, 33, 50, 51, 100, 101, 10_000)] == [
        100, 3, 2, 1, 1, 1, 1,
    ]  # fmt: skip
