"""What the numbers mean, in words that follow from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.evidence.methods import BASE
from benchmarks.evidence.statistics import Measured, Reached, lead, margin

from evomerge.evaluation import Interval

LEVEL = 0.05
# The paper's F1 out of domain is 52.13, LoRAHub's 40.94.
MARGIN = 0.27
# Of the tokens of the paper's recipe.
SHARE = 1 / 3


@dataclass(frozen=True)
class Duel:
    """One method held against another by the mean score of written answers.

    Attributes:
        lead: how far it is above the other.
        interval: of that, over tasks, seeds and rows.
        p_rows: of the paired test over rows, seeds averaged; the one that decides.
        p_tasks: of the paired test over the tasks' means.
        p_losses: of the paired test over rows by cross-entropy, and who has the lower one.
    """

    method: str
    other: str
    lead: float
    interval: Interval | None
    p_rows: float | None
    p_tasks: float | None
    loss_lead: float | None
    p_losses: float | None

    @property
    def verdict(self) -> str:
        """beats, is beaten by, or neither."""
        if self.p_rows is None or self.p_rows >= LEVEL or self.lead == 0:
            return "does not beat"
        return "beats" if self.lead > 0 else "is beaten by"


def duels(found: Measured, method: str, others: Sequence[str]) -> list[Duel]:
    """`method` against each of the others."""
    scores, losses = found.by_score(method), found.by_loss(method)
    return [
        Duel(
            method,
            other,
            *lead(found, method, other),
            scores[other].p_value,
            found.p_over_tasks(method, other),
            losses[other].difference,
            losses[other].p_value,
        )
        for other in others
    ]


def duel_lines(against: Sequence[Duel]) -> Iterator[str]:
    """A line a duel, in percentage points; the second test is by cross-entropy."""
    yield "Lead in points of score, its 95 % interval over tasks, seeds and rows; p of the paired"
    yield "test over rows (which decides), over tasks, and over rows by loss with the lead in nats"
    for duel in against:
        interval = duel.interval
        ends = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]" if interval else "[-]"
        loss = "-" if duel.loss_lead is None else f"{duel.loss_lead:+.3f}"
        yield (
            f"{duel.method} {duel.verdict:13} {duel.other:27} {100 * duel.lead:+6.1f} {ends:16} "
            f"p {_p(duel.p_rows)}, {_p(duel.p_tasks)}; loss {loss}, p {_p(duel.p_losses)}"
        )


def every_baseline(method: str, against: Sequence[Duel]) -> str:
    """Whether it beats them all."""
    failed = [duel.other for duel in against if duel.verdict != "beats"]
    if failed:
        names = ", ".join(failed)
        return f"Target not met: {method} does not beat every baseline at p < 0.05: not {names}."
    return f"Target met: {method} beats every baseline at p < 0.05 ({len(against)} of them)."


def margin_verdict(found: Measured, method: str, other: str) -> str:
    """Whether the gain over base is larger than the other's by the paper's margin."""
    result = margin(found, method, other)
    if result is None:
        return f"Margin over {other}: none can be told, for {other} gains nothing over {BASE}."
    value, interval = result
    met = "met" if value >= MARGIN else "not met"
    ends = f" [{interval.low:+.0%}, {interval.high:+.0%}]" if interval else ""
    return (
        f"Target {met}: {method}'s gain over {BASE} differs from {other}'s by "
        f"{value:+.0%}{ends} of it (wanted: {MARGIN:+.0%})."
    )


def token_verdict(reached: Reached, loss: str) -> str:
    """Whether the paper's final quality took at most a third of its tokens."""
    met = "met" if reached.median <= SHARE else "not met"
    never = f"; never in {reached.never} of {len(reached.shares)}" if reached.never else ""
    return (
        f"Target {met}: the last {loss} loss of the paper's recipe was reached with "
        f"{reached.median:.0%} of its tokens (median{never}; wanted: {SHARE:.0%})."
    )


def ablation_verdicts(
    found: Measured, wholes: Sequence[str], paper_order: Mapping[str, float]
) -> Iterator[str]:
    """Each recipe against what is left of it, and the paper's order."""
    for whole in wholes:
        parts = [name for name in found.methods if name.startswith(f"{whole},")]
        if whole in found.methods and parts:
            yield from duel_lines(duels(found, whole, parts))
            yield ""
    known = [name for name in paper_order if name in found.methods]
    for better, worse in pairwise(known):
        duel = duels(found, better, [worse])[0]
        held = "as in the paper" if duel.lead > 0 else "not as in the paper"
        yield (
            f"{held}: {better} {100 * found.score(better):.1f}, {worse} "
            f"{100 * found.score(worse):.1f} (p {_p(duel.p_rows)}; paper "
            f"{paper_order[better]:.1f}, {paper_order[worse]:.1f})"
        )


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<.001" if value < 0.001 else f"{value:.3f}".lstrip("0") if value < 1 else "1"
