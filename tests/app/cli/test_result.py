"""What is printed of a result."""

from __future__ import annotations

import json

import pytest
from rich.console import Console
from tests.app.cli.server import RESULT

from evomerge.app.cli import result
from evomerge.app.schemas.result import MetricResult


@pytest.fixture(scope="module")
def printed() -> list[str]:
    """Each printed line, with single spaces."""
    console = Console(width=160)
    with console.capture() as capture:
        console.print(result.tables(RESULT))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_a_loss_is_shown_with_interval_difference_and_p(printed: list[str]) -> None:
    assert "winner 1.7840 [1.7000, 1.9000] - -" in printed
    assert "best_expert (relations) 3.2260 - 1.4420 <0.001" in printed


def test_a_long_name_takes_a_second_line_and_no_number_is_cut() -> None:
    metric = json.loads(json.dumps(RESULT["held_out"][0]))
    best = metric["contenders"][1]
    best.update(expert="currency-portuguese-api", interval=metric["contenders"][0]["interval"])
    console = Console(width=80)
    with console.capture() as capture:
        console.print(result.proof(MetricResult.model_validate(metric)))
    shown = capture.get()
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "best_expert 3.2260 [1.7000, 1.9000] 1.4420 <0.001" in lines
    assert "(currency-portuguese-api)" in lines
    assert "…" not in shown


def test_a_score_is_shown_as_a_score_and_its_interval_turned_round(
    printed: list[str],
) -> None:
    assert "winner 0.7500 [0.6000, 0.8000] - - 0.7500 -" in printed


def test_each_metric_says_which_way_is_better(printed: list[str]) -> None:
    assert "cross_entropy on 40 held-out examples, lower is better" in printed
    assert "item_f1 on 40 held-out examples, higher is better" in printed


def test_several_datasets_have_a_column_each(printed: list[str]) -> None:
    assert "mean 95 % interval winner ahead p film music" in printed


def test_every_expert_is_shown_with_alpha_and_signed_beta(printed: list[str]) -> None:
    assert "relations 0.800 +0.600" in printed
    assert "sentiment 1.000 -0.200" in printed


def test_the_end_says_what_it_took(printed: list[str]) -> None:
    last = " ".join(printed[-2:])
    assert "denoising, generation 7, search loss 1.7010 on 40 examples" in last
    assert "400 evaluations, 95 s; ended by the budget of evaluations." in last
