"""The table: what each peer reached, and what it took."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.peers.running import Run
from benchmarks.peers.scoring import Losses

_MB = 1e6
_WIDTH = 100
_HEAD = (
    f"{'':16}{'held out':>9}{'gain %':>8}{'p':>8}{'search':>9}{'evals':>7}"
    f"{'wall s':>9}{'x ours':>8}{'ms/eval':>9}{'x ours':>8}"
    f"{'MB':>8}{'written':>9}{'disk':>8}"
)


@dataclass(frozen=True)
class Line:
    """One peer on one target.

    Attributes:
        run: None for what needs no search: base, uniform.
        losses: of its model on the held-out rows; None where there is none.
        failure: why there is none.
    """

    name: str
    run: Run | None
    losses: Losses | None
    failure: str | None = None


def lines(title: str, found: Sequence[Line], seed: int) -> Iterator[str]:
    """The table of one target; `found` begins with the base and holds `ours` for the ratios."""
    base = found[0].losses
    ours = next((line for line in found if line.name == "ours"), None)
    yield from (f"\n{title}", _HEAD)
    for line in found:
        yield f"{line.name:16}" + _quality(line, base, ours, seed) + _price(line, ours)
    yield ""
    for line in found:
        yield from _remarks(line)


def legend() -> str:
    """What the columns are."""
    return (
        "held out: nats a token on rows that no search saw, by one scorer for all, lower is "
        "better; gain: of the base's loss; p: paired test against ours; search: the loss that it "
        "chose by, as it tells it; wall: the whole process; ms/eval: from loaded models to the "
        "choice, an evaluation (ours with loading and its proof); MB: memory of all its processes "
        "at most; written: MB sent to storage; disk: MB in its working folder at most."
    )


def _quality(line: Line, base: Losses | None, ours: Line | None, seed: int) -> str:
    if line.losses is None:
        return f"{'failed':>9}{'':8}{'':8}"
    loss = line.losses.mean
    gain = f"{100 * (1 - loss / base.mean):8.1f}" if base is not None else f"{'':8}"
    p = None
    if ours is not None and ours.losses is not None and line is not ours:
        p = line.losses.p_value(ours.losses, seed)
    return f"{loss:9.4f}{gain}" + (f"{p:8.4f}" if p is not None else f"{'':8}")


def _price(line: Line, ours: Line | None) -> str:
    run = line.run
    if run is None:
        return ""
    taken = (
        f"{run.taken.memory / _MB:8.0f}{run.taken.written / _MB:9.1f}{run.taken.disk / _MB:8.1f}"
    )
    report = run.report
    mine = ours.run if ours is not None else None
    wall = f"{run.seconds:9.1f}" + _ratio(run.seconds, mine.seconds if mine else None)
    if report is None:
        return f"{'':9}{'':7}{wall}{'':17}{taken}"
    search = f"{report.search_loss:9.4f}" if report.search_loss is not None else f"{'':9}"
    each = _each(run)
    theirs = _each(mine) if mine is not None and mine.report is not None else None
    speed = f"{1e3 * each:9.1f}" + _ratio(each, theirs)
    return f"{search}{report.evaluations:7d}{wall}{speed}{taken}"


def _each(run: Run) -> float:
    """Seconds of its search an evaluation."""
    if run.report is None:
        return float("nan")
    return run.report.search_seconds / run.report.evaluations


def _ratio(value: float, ours: float | None) -> str:
    return f"{value / ours:8.2f}" if ours else f"{'':8}"


def _remarks(line: Line) -> Iterator[str]:
    said = line.failure
    if said is None and line.run is not None and line.run.report is not None:
        report = line.run.report
        versions = ", ".join(f"{name} {number}" for name, number in report.versions.items())
        said = f"{versions}. {report.note}" if report.note else versions
    if said:
        yield from textwrap.wrap(f"{line.name}: {said}", _WIDTH, subsequent_indent="  ")
