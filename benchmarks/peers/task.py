"""What every peer is given, and what it must hand back: two JSON files between processes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from evomerge.connectors.local.rows import RowEncoder
from evomerge.evaluation.example import Example
from evomerge.evaluation.split import split


class ReportError(Exception):
    """A peer ended without a report that can be believed."""


@dataclass(frozen=True)
class EncodedRow:
    """A row as text and as token ids, so that nobody's tokenization makes the difference.

    Attributes:
        tokens: prompt, a blank and the completion, end-of-text.
        start: index of the first token that is scored; all after it are scored too.
    """

    prompt: str
    completion: str
    tokens: tuple[int, ...]
    start: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - self.start


@dataclass(frozen=True)
class Task:
    """One search, the same for all.

    Attributes:
        base: folder of the base model.
        experts: folder of each adapter.
        search: the rows that a search may look at.
        proof: rows that our own job proves its result on, and no peer is told to use. They are not
            those that the table's losses are of, which no peer ever sees.
        proof_share: of `search` and `proof` together; cut by our own split and `seed`.
        budget: evaluations of a candidate at most.
        population: candidates a generation, where a peer asks for it.
        threads: of torch.
    """

    base: Path
    experts: Mapping[str, Path]
    search: Sequence[EncodedRow]
    proof: Sequence[EncodedRow]
    proof_share: float
    budget: int
    population: int
    seed: int
    threads: int

    def write(self, folder: Path, options: Mapping[str, Any]) -> Path:
        """Write it for the peer whose working folder this is."""
        path = folder / "task.json"
        fields = asdict(self) | {"folder": folder, "report": folder / "report.json"}
        path.write_text(json.dumps(fields | {"options": dict(options)}, default=str, indent=1))
        return path


@dataclass(frozen=True)
class Report:
    """What a peer found.

    Attributes:
        model: its folder.
        kind: `adapter` (of PEFT) or `checkpoint` (the whole model).
        evaluations: how many candidates were scored on the search rows.
        search_loss: of what it chose, in its own numbers; None where it tells none.
        search_seconds: from when its models were ready until the choice was made.
        versions: of the packages that did it.
        note: what had to be done so that it could run at all.
    """

    model: Path
    kind: Literal["adapter", "checkpoint"]
    evaluations: int
    search_loss: float | None
    search_seconds: float
    versions: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def read_report(path: Path) -> Report:
    """Read a peer's report.

    Raises:
        ReportError: it is not there, not JSON, or a field is missing or impossible.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        report = Report(**{**fields, "model": Path(fields["model"])})
    except FileNotFoundError as error:
        raise ReportError("it wrote no report") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ReportError(f"its report cannot be read: {error!r}") from error
    if report.kind not in ("adapter", "checkpoint"):
        raise ReportError(f"kind: {report.kind!r} is neither 'adapter' nor 'checkpoint'")
    if not report.model.is_dir():
        raise ReportError(f"model: {report.model} is no folder")
    if not isinstance(report.evaluations, int) or report.evaluations < 1:
        raise ReportError(f"evaluations: {report.evaluations!r} is no number from 1")
    return report


def encoded(examples: Sequence[Example], encoder: RowEncoder) -> list[EncodedRow]:
    """Rows as our own evaluator would score them.

    Raises:
        ContextOverflowError, EmptyAnswerError: see `RowEncoder.scored`.
    """
    rows = [(example, encoder.scored(example)) for example in examples]
    return [EncodedRow(e.prompt, e.completion, row.tokens, row.start) for e, row in rows]


def searched_and_proof(
    examples: Sequence[Example], share: float, seed: int, encoder: RowEncoder
) -> tuple[list[EncodedRow], list[EncodedRow]]:
    """The rows that our job will search on with this seed, and those it will prove on."""
    sides = split(examples, share, seed)
    return encoded(sides.search, encoder), encoded(sides.held_out, encoder)
