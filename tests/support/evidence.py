"""Pools and records for the tests of the evidence, without a model or with a tiny one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.evidence.pools import Part, Pool
from benchmarks.evidence.records import Record

from benchmarks.repository import Members
from evomerge.evaluation.example import Example

WORDS = ("red", "green", "blue", "gold", "grey", "pink")
MEMBERS = Members(
    reported=("number-a", "date-b"),
    choosing=("number-b",),
    in_domain=("date-a", "unit-a"),
    distractors=("unit-b",),
)


class CountedRows:
    """Rows of any task: a number is asked, a colour is said."""

    def rows(self, task: str, split: Part) -> Sequence[Example]:
        """Eight of each split."""
        first = 0 if split == "search" else 100
        return [Example(f"{task} {n} is", WORDS[n % 6]) for n in range(first, first + 8)]


def pool(base: Path = Path("base"), experts: Path = Path("experts")) -> Pool:
    """Seven experts, of which three are targets' own."""
    names = (*MEMBERS.targets, *MEMBERS.in_domain, *MEMBERS.distractors, "number-c")
    return Pool(
        name="tiny",
        digest="0",
        base=base,
        experts={name: experts / name for name in names},
        members=MEMBERS,
        source=CountedRows(),
        reserved=frozenset(MEMBERS.targets),
        encoding={"max_new_tokens": 3},
        metrics=dict.fromkeys(names, "token_f1"),
    )


def record(method: str, case: str, seed: int, scores: Sequence[float], **more: Any) -> Record:
    """A record of one task; losses are 1 - score."""
    fields: dict[str, Any] = {
        "key": f"{method} {case} {seed}",
        "pool": "tiny",
        "setting": "out-of-domain",
        "case": case,
        "method": method,
        "seed": seed,
        "experts": 7,
        "tasks": [case],
        "spec": {},
        "evaluations": 10,
        "tokens": 1000,
        "seconds": 1.0,
        "curve": [[500, 2.0, 2.5], [1000, 1.0, 1.5]],
        "search_loss": 1.0,
        "losses": [1 - score for score in scores],
        "weights": [1.0] * len(scores),
        "scores": list(scores),
        "sizes": [len(scores)],
        "winner": {},
        "code": "c",
        "versions": {"numpy": np.__version__},
    }
    return Record(**{**fields, **more})
