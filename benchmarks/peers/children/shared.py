"""What the peers' programs have in common. Nothing of this project is imported here: these run in
environments that do not have it."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class Row:
    """Tokens `start` and after are scored."""

    prompt: str
    completion: str
    tokens: list[int]
    start: int


def read_task() -> Any:
    """The task of the file that is the program's argument, with its rows as `Row`s."""
    fields = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for side in ("search", "proof"):
        fields[side] = [Row(**row) for row in fields[side]]
    for name in ("base", "folder", "report"):
        fields[name] = Path(fields[name])
    fields["experts"] = {name: Path(path) for name, path in fields["experts"].items()}
    return SimpleNamespace(**fields)


def seed_all(seed: int) -> None:
    """Every generator that a peer may draw from."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Clock:
    """Seconds since the models were ready."""

    def __init__(self) -> None:
        self._begun = time.perf_counter()

    def seconds(self) -> float:
        return time.perf_counter() - self._begun


def write_report(
    task: Any,
    model: Path,
    kind: str,
    *,
    evaluations: int,
    search_loss: float | None,
    search_seconds: float,
    packages: Sequence[str],
    note: str = "",
) -> None:
    """Hand back what was found."""
    report = {
        "model": str(model),
        "kind": kind,
        "evaluations": evaluations,
        "search_loss": search_loss,
        "search_seconds": search_seconds,
        "versions": {name: version(name) for name in packages},
        "note": note,
    }
    task.report.write_text(json.dumps(report, indent=1), encoding="utf-8")


def load_base(folder: Path) -> Any:
    """The base in float32."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).float()
    torch.set_grad_enabled(False)
    return model.eval()


def mean_nll(model: Any, rows: Sequence[Row], batch: int = 64) -> float:
    """Nats an answer token over all rows, in padded batches."""
    losses = [
        batch_loss(model, rows[first : first + batch]) for first in range(0, len(rows), batch)
    ]
    tokens = sum(count for _, count in losses)
    return sum(loss * count for loss, count in losses) / tokens


def batch_loss(model: Any, rows: Sequence[Row]) -> tuple[float, int]:
    """(nats an answer token, answer tokens) of rows that run together."""
    import torch

    longest = max(len(row.tokens) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for place, row in enumerate(rows):
        tokens = torch.tensor(row.tokens)
        ids[place, : len(tokens)] = tokens
        mask[place, : len(tokens)] = 1
        labels[place, row.start : len(tokens)] = tokens[row.start :]
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    return float(loss), int((labels != -100).sum())
