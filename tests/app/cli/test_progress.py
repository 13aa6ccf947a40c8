"""A job while it runs, on a terminal and off it."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console
from tests.app.cli.server import job

from evomerge.app.cli.progress import JobProgress, headline, time_left


def shown(*jobs: dict[str, object], terminal: bool) -> str:
    out = StringIO()
    console = Console(file=out, width=200, force_terminal=terminal, color_system=None)
    with JobProgress(console) as progress:
        for one in jobs:
            progress.show(one)
    return out.getvalue()


def test_a_terminal_sees_stage_generation_loss_evaluations_and_time_left() -> None:
    bar = shown(job(), terminal=True)
    for part in ("scaling, generation 3", "40/400 evaluations", "best loss 1.2500", "1:02:05 left"):
        assert part in bar


def test_elsewhere_there_is_a_line_for_each_generation_and_state() -> None:
    same = job()
    next_one = job()
    next_one["progress"] = {**next_one["progress"], "generation": 4, "evaluations": 50}
    lines = shown(job("queued", progress={}), same, same, next_one, terminal=False).splitlines()
    assert lines == [
        "queued",
        "scaling, generation 3: 40 of 400 evaluations, best loss 1.2500",
        "scaling, generation 4: 50 of 400 evaluations, best loss 1.2500",
    ]


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("loading", "loading base and pool"),
        ("asking", "asking the experts"),
        ("held_out", "proving on held-out data"),
        ("storing", "writing the merged model"),
    ],
)
def test_what_is_no_search_is_named_in_words(stage: str, said: str) -> None:
    assert headline(job(progress={"stage": stage, "generation": 9})) == said


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ("lora", "loading base and pool"),
        ("output", "reading the examples"),
        ("remote", "reaching the provider"),
    ],
)
def test_what_is_made_ready_depends_on_the_space(space: str, said: str) -> None:
    loading = {"stage": "loading"}
    assert headline(job(progress=loading, spec={"space": space})) == said
    assert headline(job("queued", progress=loading, spec={"space": space})) == "queued"


def test_answers_are_counted_while_experts_are_asked() -> None:
    progress = {"stage": "asking", "answers": 30, "planned_answers": 400}
    assert "30/400 answers" in shown(job(progress=progress), terminal=True)


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, ""), (0.4, "0:00:00 left"), (59.6, "0:01:00 left")]
)
def test_time_left(seconds: float | None, said: str) -> None:
    assert time_left(seconds) == said
