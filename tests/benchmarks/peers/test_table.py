"""The table of peers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from benchmarks.peers.meter import Taken
from benchmarks.peers.running import Run
from benchmarks.peers.scoring import Losses
from benchmarks.peers.table import Line, lines
from benchmarks.peers.task import Report


def losses(mean: float) -> Losses:
    return Losses(np.array([mean - 0.1, mean + 0.1]), np.array([2.0, 2.0]))


def run(seconds: float, search_seconds: float) -> Run:
    report = Report(Path(), "adapter", 10, 1.25, search_seconds, {"peer": "1.0"}, "with a note")
    return Run(seconds, Taken(50_000_000, 2_000_000, 1_000_000), report, None)


def test_ratios_are_against_ours_and_gains_against_the_base() -> None:
    found = [
        Line("base", None, losses(2.0)),
        Line("ours", run(10.0, 1.0), losses(1.0)),
        Line("slow", run(30.0, 7.0), losses(1.5)),
    ]
    slow = next(line for line in lines("title", found, 1) if line.startswith("slow")).split()
    assert slow[1:] == [
        *("1.5000", "25.0", "0.5000", "1.2500", "10"),
        *("30.0", "3.00", "700.0", "7.00", "50", "2.0", "1.0"),
    ]


def test_a_peer_that_failed_stands_in_the_table_with_its_reason() -> None:
    failed = Run(3.0, Taken(1, 2, 3), None, "no GPU")
    found = [
        Line("base", None, losses(2.0)),
        Line("ours", run(10.0, 1.0), losses(1.0)),
        Line("broken", failed, None, "no GPU"),
        Line("missing", None, None, "cannot be installed here"),
    ]
    told = list(lines("title", found, 1))
    assert any(line.startswith("broken") and "failed" in line for line in told)
    assert "broken: no GPU" in told
    assert "missing: cannot be installed here" in told


def test_without_ours_there_are_no_ratios() -> None:
    found = [Line("base", None, losses(2.0)), Line("slow", run(30.0, 7.0), losses(1.5))]
    slow = next(line for line in lines("title", found, 1) if line.startswith("slow")).split()
    assert slow[1:] == ["1.5000", "25.0", "1.2500", "10", "30.0", "700.0", "50", "2.0", "1.0"]
