"""Tasks and their rows: a kind asked in a domain, split so that no search meets a training row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Literal

from benchmarks.repository.kinds import answers, label

from evomerge.evaluation.example import Example

Split = Literal["train", "search", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "search", "held_out")
_SHARES: Mapping[Split, float] = {"held_out": 0.25, "search": 0.15, "train": 0.6}
# Rows of a split at most.
_MOST: Mapping[Split, int] = {"held_out": 128, "search": 64, "train": 800}


@dataclass(frozen=True, order=True)
class Task:
    """A kind of question asked in one domain, e.g. `date-es`.

    Attributes:
        kind: see `kinds.answers`.
        domain: a language code, a script, or `english`.
    """

    kind: str
    domain: str

    @property
    def name(self) -> str:
        """The task's and its expert's name."""
        return f"{self.kind}-{self.domain}"

    @classmethod
    def of(cls, name: str) -> Task:
        """The task of a name."""
        kind, _, domain = name.partition("-")
        return cls(kind, domain)

    @property
    def asks_in(self) -> str:
        """What stands before every answer: `Spanish:`."""
        return f"{label(self.domain)}:"

    def prompt(self, question: str) -> str:
        """The question as a model is given it."""
        return f"{self.kind.capitalize()}: {question}\n{self.asks_in}"


def rows_of(task: Task) -> dict[Split, list[Example]]:
    """The rows of each split.

    A question falls into the same split in every domain: what is held out of Spanish country
    names is held out of Portuguese ones, and of what the base has read.

    Raises:
        KeyError: there is no such task.
    """
    rows: dict[Split, list[Example]] = {split: [] for split in SPLITS}
    table = answers(task.kind, task.domain)
    for question in sorted(table, key=lambda question: _place(task.kind, question)):
        rows[_split(task.kind, question)].append(Example(task.prompt(question), table[question]))
    return {split: rows[split][: _MOST[split]] for split in SPLITS}


def relatives(task: Task, others: Iterable[Task]) -> list[Task]:
    """Those that share the kind or the domain."""
    return sorted(
        other
        for other in others
        if other != task and (other.kind == task.kind or other.domain == task.domain)
    )


def names(tasks: Sequence[Task]) -> list[str]:
    """Their names, in order."""
    return [task.name for task in tasks]


def _place(kind: str, question: str) -> float:
    """A number in [0, 1) that a question has in all domains."""
    digest = sha256(f"{kind}:{question}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _split(kind: str, question: str) -> Split:
    place = _place(kind, question)
    for split, share in _SHARES.items():
        if place < share:
            return split
        place -= share
    return "train"
