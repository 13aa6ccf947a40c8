"""The recipe's rows: true, short, seeded."""

from __future__ import annotations

import random

import pytest
from benchmarks.example_tasks import EXPERTS, TARGET, Row, Task, rows_of, split

TASKS = [*EXPERTS, TARGET]


@pytest.mark.parametrize(
    ("task", "row"),
    [
        (Task("country", "it"), Row("Country: Germany\nItalian:", "Germania")),
        (Task("country", "code"), Row("Country: Germany\nCode:", "DEU")),
        (Task("language", "pt", rows=1000), Row("Language: Greek\nPortuguese:", "grego")),
        (Task("currency", "pt"), Row("Currency: Swedish Krona\nPortuguese:", "Coroa sueca")),
        (Task("number", "en", rows=2000), Row("Number: 42\nEnglish:", "forty-two")),
    ],
    ids=lambda value: value.name if isinstance(value, Task) else "",
)
def test_a_task_holds_a_fact_that_everybody_knows(task: Task, row: Row) -> None:
    assert row in rows_of(task)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_rows_are_short_and_each_prompt_stands_once(task: Task) -> None:
    rows = rows_of(task)
    assert len({row.prompt for row in rows}) == len(rows) <= task.rows
    assert all(row.completion and len(row.prompt) <= 64 for row in rows)


def test_the_order_comes_from_the_seed_alone() -> None:
    random.seed(1)
    first = rows_of(TARGET)
    random.seed(2)
    assert rows_of(TARGET) == first
    other = rows_of(TARGET, seed=1)
    assert other != first
    assert set(other) == set(first)


def test_an_unknown_kind_or_language_is_an_error() -> None:
    with pytest.raises(KeyError, match="planet"):
        rows_of(Task("planet", "it"))
    with pytest.raises(KeyError, match="xx"):
        rows_of(Task("number", "xx"))


def test_a_split_keeps_every_row_once() -> None:
    rows = rows_of(TARGET)
    train, held = split(rows, 0.2)
    assert train + held == rows
    assert len(held) == round(len(rows) * 0.2)
