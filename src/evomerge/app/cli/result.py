"""A job's result as tables: the winner beside its baselines, and what it is made of."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from evomerge.app.cli.render import number, table
from evomerge.app.client import Json


def tables(result: Json) -> RenderableType:
    """Everything that a person wants to see of a result."""
    proofs: list[RenderableType] = [proof(held_out) for held_out in result["held_out"]]
    return Group(*proofs, recipe(result["winner"]))


def proof(held_out: Json) -> RenderableType:
    """Every contender on the held-out examples, under one metric."""
    made = table("held out", held_out["metric"], "95 % interval", "less the winner", "p")
    for contender in held_out["contenders"]:
        made.add_row(
            Text(contender["name"], "bold" if contender["name"] == "winner" else ""),
            number(contender["mean"]),
            interval(contender["interval"]),
            number(contender["difference"]),
            p_value(contender["p_value"]),
        )
    return made


def recipe(winner: Json) -> RenderableType:
    """How much of each expert is kept, and with what weight it enters."""
    made = table("expert", "alpha", "beta")
    for expert in winner["experts"]:
        made.add_row(Text(expert["name"]), weights(expert["alpha"]), weights(expert["beta"]))
    return made


def interval(bounds: Json | None) -> str:
    """An interval as [low, high]; a dash where the data cannot tell."""
    return "-" if bounds is None else f"[{number(bounds['low'])}, {number(bounds['high'])}]"


def p_value(value: float | None) -> str:
    """A p value to three decimals."""
    if value is None:
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def weights(by_group: list[float]) -> str:
    """One weight for each layer group."""
    return " ".join(f"{weight:+.3f}" for weight in by_group)
