"""The seeded cut: disjoint, deterministic, stable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.example import Example
from evomerge.evaluation.split import split


def rows(*prompts: str) -> list[Example]:
    return [Example(prompt, f"answer {n}", row=n) for n, prompt in enumerate(prompts, start=1)]


def distinct(count: int) -> list[Example]:
    return rows(*(f"question {n}" for n in range(count)))


@st.composite
def datasets(draw: st.DrawFn) -> list[Example]:
    prompts = draw(st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=40))
    if len(set(prompts)) < 2:
        prompts.append("another")
    return rows(*prompts)


SHARES = st.floats(0.01, 0.99)
SEEDS = st.integers(0, 2**32 - 1)


@given(datasets(), SHARES, SEEDS)
def test_every_row_stands_on_one_side_and_no_prompt_on_both(
    examples: list[Example], share: float, seed: int
) -> None:
    cut = split(examples, share, seed)
    assert cut.search
    assert cut.held_out
    assert sorted(e.row for e in cut.search + cut.held_out) == [e.row for e in examples]
    assert not {e.prompt for e in cut.search} & {e.prompt for e in cut.held_out}


@given(datasets(), SHARES, SEEDS, st.randoms())
def test_the_cut_depends_on_neither_the_order_of_rows_nor_numpys_global_generator(
    examples: list[Example], share: float, seed: int, random: object
) -> None:
    first = split(examples, share, seed)
    np.random.seed(3)
    shuffled = list(examples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    second = split(shuffled, share, seed)
    assert {e.row for e in first.held_out} == {e.row for e in second.held_out}
    assert split(examples, share, seed) == first


@given(datasets(), SHARES, SEEDS, st.integers(1, 20), st.integers(0, 20))
def test_a_larger_limit_keeps_the_rows_of_a_smaller_one(
    examples: list[Example], share: float, seed: int, limit: int, more: int
) -> None:
    small = split(examples, share, seed, search_limit=limit, held_out_limit=limit)
    large = split(examples, share, seed, search_limit=limit + more, held_out_limit=limit + more)
    whole = split(examples, share, seed)
    assert small.search == large.search[:limit] == whole.search[:limit]
    assert small.held_out == large.held_out[:limit] == whole.held_out[:limit]


@pytest.mark.parametrize(
    ("count", "share", "held"), [(10, 0.5, 5), (10, 0.2, 2), (10, 0.28, 3), (300, 0.1, 30)]
)
def test_distinct_prompts_give_the_nearest_share(count: int, share: float, held: int) -> None:
    cut = split(distinct(count), share, seed=7)
    assert (len(cut.search), len(cut.held_out)) == (count - held, held)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_an_extreme_share_still_leaves_a_row_on_each_side(share: float) -> None:
    cut = split(distinct(3), share, seed=1)
    assert min(len(cut.search), len(cut.held_out)) == 1


def test_another_seed_cuts_otherwise() -> None:
    examples = distinct(50)
    assert split(examples, 0.5, seed=0) != split(examples, 0.5, seed=1)


def test_raw_texts_are_grouped_by_their_text() -> None:
    texts = [Example("", text, row=n) for n, text in enumerate("aabbccdd", start=1)]
    cut = split(texts, 0.5, seed=0)
    assert not {e.completion for e in cut.search} & {e.completion for e in cut.held_out}
    assert len(cut.search) == len(cut.held_out) == 4


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"held_out": 0.0}, "held_out", "0.0"),
        ({"held_out": 1.0}, "held_out", "1.0"),
        ({"held_out": float("nan")}, "held_out", "nan"),
        ({"seed": -1}, "seed", "-1"),
        ({"search_limit": 0}, "search_limit", "0"),
        ({"held_out_limit": -2}, "held_out_limit", "-2"),
    ],
)
def test_a_bad_argument_is_named_with_its_value(
    change: dict[str, float], field: str, value: str
) -> None:
    arguments = {"held_out": 0.5, "seed": 0} | change
    with pytest.raises(InvalidArgumentError, match=f"{field}={value}") as caught:
        split(distinct(4), **arguments)  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.mark.parametrize("examples", [[], distinct(1)])
def test_fewer_than_two_rows_cannot_be_cut(examples: list[Example]) -> None:
    with pytest.raises(InvalidArgumentError, match=f"examples={len(examples)}: at least two rows"):
        split(examples, 0.5, seed=0)


def test_rows_of_one_prompt_cannot_be_cut() -> None:
    with pytest.raises(InvalidArgumentError, match="all rows have the same prompt"):
        split(rows("same", "same", "same"), 0.5, seed=0)
