"""One setting's section of the results: where it was measured, its tables, and verdicts."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date

from benchmarks.evidence.ablations import PAPER_ORDER
from benchmarks.evidence.methods import BASE, DEFAULT, LORAHUB, PAPER
from benchmarks.evidence.records import Record
from benchmarks.evidence.statistics import Measured, measured, tokens_to_reach
from benchmarks.evidence.verdicts import (
    ablation_verdicts,
    duel_lines,
    duels,
    every_baseline,
    margin_verdict,
    token_verdict,
)

_NAME, _CELL = 28, 10


def report(
    title: str, records: Sequence[Record], asked: Sequence[str], wanted: int, command: str
) -> str:
    """Markdown of one setting.

    Args:
        title: names pool and setting.
        records: of all its cases and seeds.
        asked: the methods that are to be compared.
        wanted: records that each method has when it is complete; others are left out, and named.
        command: that prints it again.
    """
    counts = Counter(record.method for record in records)
    whole = [record for record in records if counts[record.method] == wanted]
    lines = [f"## {title[0].upper()}{title[1:]}", "", *_provenance(records, command)]
    partial = [f"{name} ({counts[name]} of {wanted})" for name in asked if counts[name] != wanted]
    if partial:
        lines += [f"Not measured on every case and seed, and left out: {', '.join(partial)}.", ""]
    if not whole:
        return "\n".join([*lines, "Nothing is measured yet."])
    found = measured(whole)
    lines += ["```text", *_quality(found, whole), "```", ""]
    if whole[0].setting == "ablations":
        lines += ["```text", *ablation_verdicts(found, (PAPER, DEFAULT), PAPER_ORDER), "```"]
    elif DEFAULT in found.methods:
        lines += ["```text", *_verdicts(found, whole), "```"]
    return "\n".join(lines)


def _provenance(records: Sequence[Record], command: str) -> Iterator[str]:
    """Date, machine and versions, and the command."""
    if records:
        first = records[0]
        versions = ", ".join(f"{name} {number}" for name, number in first.versions.items())
        yield (
            f"Printed on {date.today().isoformat()}; {os.cpu_count()} cores "
            f"({platform.machine()}), one thread a search; Python {platform.python_version()}, "
            f"{versions}."
        )
        codes = Counter(record.code for record in records)
        if len(codes) > 1:
            yield f"Measured while the code changed ({len(codes)} states of it); see the records."
        yield ""
    yield from ("```sh", command, "```", "")


def _quality(found: Measured, records: Sequence[Record]) -> Iterator[str]:
    """A line a method, the best first; a column a task."""
    first = records[0]
    rows = sum(weights.size for weights in found.weights.values())
    seeds = len({record.seed for record in records})
    yield (
        f"{first.experts} experts; {len(found.tasks)} tasks, {rows} held-out rows; {seeds} seeds. "
        "Score: of the"
    )
    yield "answers written, mean over tasks, 95 % interval over rows. Loss: nats a token."
    yield ""
    reference = found.methods[0]
    scores, losses = found.by_score(reference), found.by_loss(reference)
    head = ["score", "from", "to", "loss", "evals", "Mtokens", "seconds"]
    yield _line("", head)
    for name in sorted(found.methods, key=found.score, reverse=True):
        own = [record for record in records if record.method == name]
        interval, loss = scores[name].interval, losses[name].mean
        ends = ("-", "-") if interval is None else (1 - interval.high, 1 - interval.low)
        evaluations = sum(record.evaluations for record in own) / len(own)
        tokens = sum(record.tokens for record in own) / len(own) / 1e6
        seconds = sum(record.seconds for record in own) / len(own)
        cells = [
            _share(found.score(name)),
            *map(_share, ends),
            "-" if loss is None else f"{loss:.3f}",
        ]
        yield _line(name, [*cells, f"{evaluations:.0f}", f"{tokens:.3f}", f"{seconds:.0f}"])
    yield ""
    yield "Score by task"
    for begin in range(0, len(found.tasks), 6):
        some = found.tasks[begin : begin + 6]
        yield _line("", [task[: _CELL + 2] for task in some], _CELL + 3)
        for name in sorted(found.methods, key=found.score, reverse=True):
            yield _line(name, [_share(found.task_score(name, t)) for t in some], _CELL + 3)


def _verdicts(found: Measured, records: Sequence[Record]) -> Iterator[str]:
    against = duels(found, DEFAULT, [name for name in found.methods if name != DEFAULT])
    yield from duel_lines(against)
    yield ""
    if baselines := [duel for duel in against if duel.other != PAPER]:
        yield every_baseline(DEFAULT, baselines)
    if LORAHUB in found.methods and BASE in found.methods:
        yield margin_verdict(found, DEFAULT, LORAHUB)
    if PAPER in found.methods:
        mine, theirs = (
            {(record.case, record.seed): record for record in records if record.method == name}
            for name in (DEFAULT, PAPER)
        )
        for column, loss in ((2, "held-out"), (1, "search")):
            yield token_verdict(tokens_to_reach(mine, theirs, column), loss)


def _line(name: str, cells: Sequence[str], width: int = _CELL) -> str:
    return f"{name:<{_NAME}}" + "".join(f"{cell:>{width}}" for cell in cells)


def _share(value: float | str) -> str:
    return value if isinstance(value, str) else f"{100 * value:.1f}"
