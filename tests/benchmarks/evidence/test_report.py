"""Verdicts follow the numbers, both ways, and the page keeps what it is not told to change."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from benchmarks.evidence.page import write_section
from benchmarks.evidence.records import Record
from benchmarks.evidence.report import report
from tests.support.evidence import record

CASES, SEEDS = ("a", "b", "c"), (1, 2)


def records(means: dict[str, float], setting: str = "out-of-domain") -> list[Record]:
    rng = np.random.default_rng(1)
    return [
        record(name, case, seed, rng.normal(mean, 0.05, 30).clip(0, 1).tolist(), setting=setting)
        for name, mean in means.items()
        for case in CASES
        for seed in SEEDS
    ]


def text(made: list[Record], *more: str) -> str:
    asked = [*dict.fromkeys(one.method for one in made), *more]
    return report("tiny, a setting", made, asked, len(CASES) * len(SEEDS), "python -m this")


def test_a_default_that_is_ahead_meets_the_targets() -> None:
    said = text(records({"default": 0.8, "paper": 0.5, "lorahub": 0.5, "base": 0.2}))
    assert "default beats         lorahub" in said
    assert "Target met: default beats every baseline at p < 0.05 (2 of them)." in said
    assert re.search(
        r"Target met: default's gain over base differs from lorahub's by \+(9|10)\d%", said
    )
    # Both records have the same curve: the same quality for the same tokens.
    assert (
        "Target not met: the last held-out loss of the paper's recipe was reached with 100%" in said
    )
    assert "python -m this" in said


def test_a_default_that_is_behind_is_said_to_be() -> None:
    said = text(records({"default": 0.4, "lorahub": 0.5, "ties": 0.4, "base": 0.2}))
    assert "default is beaten by  lorahub" in said
    assert "default beats         base" in said
    assert "Target not met: default does not beat every baseline at p < 0.05: not lorahub" in said
    assert "Target not met: default's gain over base differs from lorahub's by -" in said


def test_the_best_method_stands_first() -> None:
    lines = text(records({"base": 0.2, "default": 0.8, "ties": 0.5})).splitlines()
    head = next(n for n, line in enumerate(lines) if line.split()[:2] == ["score", "from"])
    assert [line.split()[0] for line in lines[head + 1 : head + 4]] == ["default", "ties", "base"]


def test_what_is_not_complete_is_left_out_and_named() -> None:
    made = records({"default": 0.8, "base": 0.2})
    said = text(made[:-1], "ties")
    assert "left out: base (5 of 6), ties (0 of 6)." in said
    assert "default beats every" not in said
    assert "Nothing is measured yet." in text([], "ties")


def test_ablations_are_held_against_the_papers_order() -> None:
    means = {"paper": 0.6, "paper, without denoising": 0.4, "paper, beta >= 0": 0.5}
    said = text(records(means, setting="ablations"))
    assert "paper beats         paper, without denoising" in said
    assert re.search(r"\nas in the paper: paper \d", said)
    assert "\nnot as in the paper: paper, without denoising" in said


def test_sections_of_a_page_leave_each_other_alone(tmp_path: Path) -> None:
    page = tmp_path / "results.md"
    page.write_text("# Results\n\nwritten by hand\n")
    write_section(page, "one", "## One\n\nfirst")
    write_section(page, "two", "## Two\n\nsecond")
    before = page.read_text()
    write_section(page, "one", "## One\n\nthird \\1")
    after = page.read_text()
    assert after == before.replace("first", "third \\1")
    assert after.startswith("# Results\n\nwritten by hand\n")
