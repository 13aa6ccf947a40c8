"""What was measured, a line each: appended whole, on the disk before the next is begun."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Record:
    """One search with its proof.

    Attributes:
        key: of everything that was asked; the same key is never measured twice.
        pool, setting, case, method, seed: what it is of.
        experts, tasks: how many, and their names.
        spec: the job spec's fields.
        evaluations, tokens, seconds: what candidates that may win cost to score, and the time of
            all scoring.
        curve: (tokens scored, best search loss, that candidate's held-out loss) as it fell.
        search_loss: the winner's.
        losses, weights: the winner's cross-entropy (nats a token) of each held-out row, and the
            row's answer tokens.
        scores: of the answers written to the held-out rows, 0 to 1.
        sizes: held-out rows of each task, in order.
        winner: its weights by expert, those that are not 0.
        code: digest of the code that made it.
        versions: of what it ran with.
    """

    key: str
    pool: str
    setting: str
    case: str
    method: str
    seed: int
    experts: int
    tasks: list[str]
    spec: dict[str, Any]
    evaluations: int
    tokens: int
    seconds: float
    curve: list[list[float]]
    search_loss: float
    losses: list[float]
    weights: list[float]
    scores: list[float]
    sizes: list[int]
    winner: dict[str, float]
    code: str
    versions: dict[str, str] = field(default_factory=dict)


class Records:
    """A file of records. Several processes may append to one.

    A line that was cut off by a crash is passed over, and so is measured again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Record]:
        """Every whole record by its key; the last of equals."""
        if not self.path.exists():
            return {}
        found = {}
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                record = Record(**json.loads(line))
            except (json.JSONDecodeError, TypeError):
                continue
            found[record.key] = record
        return found

    def append(self, record: Record) -> None:
        """Write a record and see it to the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(asdict(record), separators=(",", ":")) + "\n"
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if size and not _ends_a_line(file.fileno(), size):
                line = "\n" + line
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())


def _ends_a_line(descriptor: int, size: int) -> bool:
    return os.pread(descriptor, 1, size - 1) == b"\n"


def key_of(asked: Iterable[object]) -> str:
    """A digest that is another one as soon as anything asked is."""
    written = json.dumps(list(asked), sort_keys=True, ensure_ascii=False)
    return sha256(written.encode()).hexdigest()[:16]
