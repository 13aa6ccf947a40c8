"""A job's result as tables: a winner beside its baselines, or what was done with a forest."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from evomerge.app.cli import forest_result
from evomerge.app.cli.render import number, table
from evomerge.app.client import Json
from evomerge.app.schemas.result import (
    ContenderResult,
    JobResult,
    MetricResult,
    ResultInterval,
    WinnerResult,
)


def tables(result: Json) -> RenderableType:
    """Everything that a person wants to see of a result, from its JSON.

    Raises:
        pydantic.ValidationError: it is no result of this version.
    """
    if result.get("object") == "forest_job.result":
        return forest_result.tables(result)
    found = JobResult.model_validate(result)
    parts: list[RenderableType] = [proof(metric) for metric in found.held_out]
    return Group(*parts, recipe(found.winner), Text(footnote(found)))


def proof(metric: MetricResult) -> RenderableType:
    """Every contender on the held-out examples under one metric.

    Scores are shown for metrics that are scores, losses for the rest; what the winner is ahead
    by is positive where the winner is better, either way.
    """
    datasets = list(metric.contenders[0].dataset_losses)
    parts = datasets if len(datasets) > 1 else []
    made = table("", "mean", "95 % interval", "winner ahead", "p", *parts)
    made.title = caption(metric)
    # Where there is no room for a long name, it breaks; the numbers stay whole.
    made.columns[0].no_wrap = False
    for contender in metric.contenders:
        made.add_row(
            contender_name(contender),
            number(contender.loss if contender.score is None else contender.score),
            interval(contender.interval, is_score=contender.score is not None),
            number(contender.difference),
            p_value(contender.p_value),
            *(
                as_shown(contender.dataset_losses[name], is_score=contender.score is not None)
                for name in parts
            ),
        )
    return made


def caption(metric: MetricResult) -> str:
    """What a table of a metric shows."""
    better = "lower" if metric.contenders[0].score is None else "higher"
    return f"{metric.metric} on {metric.examples} held-out examples, {better} is better"


def recipe(winner: WinnerResult) -> RenderableType:
    """How much of each expert is kept, and with what weight it enters."""
    made = table("expert", "alpha", "beta")
    for name, alpha in winner.alpha.items():
        kept = " ".join(f"{fraction:.3f}" for fraction in alpha)
        made.add_row(Text(name), kept, " ".join(f"{weight:+.3f}" for weight in winner.beta[name]))
    return made


def footnote(found: JobResult) -> str:
    """Where the winner comes from and what it took."""
    winner = found.winner
    ended = f"; ended by the budget of {found.ended_by}" if found.ended_by else ""
    return (
        f"Winner: {winner.stage}, generation {winner.generation}, search loss "
        f"{number(winner.search_loss)} on {found.search_examples} examples. "
        f"{found.usage['search'].evaluations} evaluations, {found.seconds:.0f} s{ended}."
        f"{spent(found)}{missing(found)}"
    )


def spent(found: JobResult) -> str:
    """What calls to APIs came to, where there were any."""
    calls = found.calls.values()
    if not calls:
        return ""
    return (
        f"\nCalls: {sum(one.requests for one in calls)} requests, "
        f"{sum(one.input_tokens for one in calls)} tokens in and "
        f"{sum(one.output_tokens for one in calls)} out, "
        f"{sum(one.usd for one in calls):.4f} USD."
    )


def missing(found: JobResult) -> str:
    """Which experts have no part in it, and why."""
    return "".join(f"\nLeft out: {name}, {why}." for name, why in found.left_out.items())


def contender_name(contender: ContenderResult) -> Text:
    """Its name, and which expert the best expert is."""
    which = f" ({contender.expert})" if contender.expert else ""
    return Text(f"{contender.name}{which}", "bold" if contender.name == "winner" else "")


def interval(bounds: ResultInterval | None, *, is_score: bool) -> str:
    """The interval of a loss as [low, high], turned round for a score; a dash for none."""
    if bounds is None:
        return "-"
    low, high = (1 - bounds.high, 1 - bounds.low) if is_score else (bounds.low, bounds.high)
    return f"[{number(low)}, {number(high)}]"


def as_shown(loss: float | None, *, is_score: bool) -> str:
    """A loss, or the score that it stands for."""
    return number(1 - loss if is_score and loss is not None else loss)


def p_value(value: float | None) -> str:
    """A p value to three decimals."""
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"
