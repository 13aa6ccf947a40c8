"""Rows are split by question, and the settings' members keep what they promise."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from benchmarks.repository.base import reading
from benchmarks.repository.members import Members
from benchmarks.repository.settings import (
    Settings,
    folder_of,
    full_settings,
    quick_settings,
)
from benchmarks.repository.tasks import SPLITS, Split, Task, relatives, rows_of

FULL, QUICK = full_settings(), quick_settings()


@pytest.fixture(scope="module")
def one_of_each_kind() -> list[Task]:
    """The last task of each kind."""
    return list({task.kind: task for task in map(Task.of, FULL.experts)}.values())


def test_splits_share_no_prompt_and_are_large_enough(one_of_each_kind: list[Task]) -> None:
    for task in one_of_each_kind:
        rows = rows_of(task)
        prompts = {split: {row.prompt for row in rows[split]} for split in SPLITS}
        assert all(len(prompts[split]) == len(rows[split]) for split in SPLITS)
        for first, second in combinations(SPLITS, 2):
            assert prompts[first].isdisjoint(prompts[second]), task
        assert len(rows["train"]) >= 100, task
        assert len(rows["search"]) >= 20, task
        assert len(rows["held_out"]) >= 40, task


def test_rows_are_short_and_answered(one_of_each_kind: list[Task]) -> None:
    for task in one_of_each_kind:
        for rows in rows_of(task).values():
            assert all(row.completion and len(row.prompt) < 80 for row in rows), task


def questions(task: Task, split: Split) -> set[str]:
    """What is asked, without the domain."""
    return {row.prompt.partition("\n")[0] for row in rows_of(task)[split]}


@pytest.mark.parametrize("kind", ["country", "date"])
def test_what_one_language_holds_out_no_other_trains_on(kind: str) -> None:
    trained = questions(Task(kind, "es"), "train")
    assert trained.isdisjoint(questions(Task(kind, "pl"), "search"))
    assert trained.isdisjoint(questions(Task(kind, "pl"), "held_out"))


def test_the_base_reads_training_questions_alone_and_no_question_of_an_expert() -> None:
    asked, plain = reading(QUICK)
    read = {row.prompt for row in asked}
    for task in map(Task.of, QUICK.experts):
        assert read.isdisjoint(row.prompt for rows in rows_of(task).values() for row in rows)
    asked_lines = {prompt.partition("\n")[0] for prompt in read}
    assert asked_lines.isdisjoint(questions(Task("unit", "es"), "held_out"))
    assert all("\n" not in text for text in plain)


def test_a_prompt_names_the_question_and_the_domain() -> None:
    assert Task("country", "it").prompt("Germany") == "Country: Germany\nItalian:"


def test_relatives_share_the_kind_or_the_domain() -> None:
    pool = [Task("date", "es"), Task("number", "es"), Task("date", "pt"), Task("unit", "pt")]
    assert relatives(pool[0], pool) == [Task("date", "pt"), Task("number", "es")]


@pytest.mark.parametrize("settings", [FULL, QUICK], ids=["full", "quick"])
def test_members_are_experts_and_stand_in_one_place_each(settings: Settings) -> None:
    everyone = settings.members.everyone
    assert len(set(everyone)) == len(everyone)
    assert set(everyone) <= set(settings.experts)


@pytest.mark.parametrize("settings", [FULL, QUICK], ids=["full", "quick"])
def test_every_target_has_relatives_of_both_sorts_in_the_pool(settings: Settings) -> None:
    left = set(settings.experts) - set(settings.members.targets)
    pool = [Task.of(name) for name in left]
    for target in map(Task.of, settings.members.targets):
        assert any(task.kind == target.kind for task in pool), target
        assert any(task.domain == target.domain for task in pool), target


def test_the_full_repository_is_what_is_asked_for() -> None:
    members: Members = FULL.members
    assert (len(members.reported), len(members.choosing)) == (6, 6)
    assert (len(members.in_domain), len(members.distractors)) == (8, 5)
    assert len(FULL.experts) - len(members.targets) >= FULL.least >= 100
    kinds = {Task.of(name).kind for name in FULL.experts}
    wide = [k for k in kinds if sum(Task.of(n).kind == k for n in FULL.experts) >= 12]
    assert len(wide) >= 8


def test_distractors_are_of_other_kinds() -> None:
    kinds = {Task.of(name).kind for name in FULL.members.in_domain}
    assert kinds.isdisjoint(Task.of(name).kind for name in FULL.members.distractors)


def test_experts_and_background_share_no_domain() -> None:
    def domains(names: tuple[str, ...]) -> set[str]:
        return {Task.of(name).domain for name in names}

    assert domains(FULL.experts).isdisjoint(domains(FULL.background))


def test_another_seed_has_another_folder(tmp_path: Path) -> None:
    first = folder_of(FULL, tmp_path)
    assert folder_of(full_settings(), tmp_path) == first
    assert folder_of(replace(FULL, seed=8), tmp_path) != first
