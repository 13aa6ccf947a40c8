"""What is gone on with where answers are missing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evomerge.app.worker.completeness import complete

EACH = (slice(0, 4), slice(4, 6))  # examples to search on, and to prove it on


def asked(*rows: str) -> np.ndarray:
    return np.array([[mark == "x" for mark in row] for row in rows])


def test_nothing_is_left_out_of_what_is_whole() -> None:
    found = complete(asked("xxxxxx", "xxxxxx"), EACH)
    assert found is not None
    assert (found.experts, found.answers) == ((0, 1), 12)


def test_examples_go_where_all_experts_are_about_as_far() -> None:
    found = complete(asked("xxx.xx", "xxxxx.", "xxx.x."), EACH)
    assert found is not None
    assert found.experts == (0, 1, 2)
    assert np.flatnonzero(found.examples).tolist() == [0, 1, 2, 4]


def test_an_expert_goes_that_would_take_more_answers_with_it() -> None:
    found = complete(asked("xxxxxx", "x...x.", "xxxxxx"), EACH)
    assert found is not None
    assert (found.experts, found.answers) == ((0, 2), 12)


def test_two_experts_are_rather_merged_than_one_taken_alone() -> None:
    found = complete(asked("xxxxxx", "x...x."), EACH)
    assert found is not None
    assert (found.experts, found.answers) == ((0, 1), 4)
    alone = complete(asked("xxxxxx", "xxxx.."), EACH)
    assert alone is not None
    assert alone.experts == (0,)


def test_examples_of_each_kind_are_needed() -> None:
    assert complete(asked("xxxx..", "xxxx.."), EACH) is None


@given(arrays(np.bool_, (4, 6)))
def test_what_is_kept_has_no_gap_and_is_missed_only_where_there_is_none(table: np.ndarray) -> None:
    found = complete(table, EACH)
    if found is None:
        assert not any(table[one, :4].any() and table[one, 4:].any() for one in range(4))
        return
    kept = table[list(found.experts)]
    assert (kept.all(axis=0) == found.examples).all()
    assert all(found.examples[part].any() for part in EACH)
    whole = table.all(axis=0)
    if all(whole[part].any() for part in EACH):
        assert len(found.experts) > 1
        assert found.answers >= 4 * whole.sum()


@given(st.permutations(range(3)))
def test_the_order_of_the_pool_changes_nothing(order: list[int]) -> None:
    table = asked("xxxxxx", "xxxxx.", "x.....")
    found = complete(table[order], EACH)
    assert found is not None
    assert {order[place] for place in found.experts} == {0, 1}
