"""What the forest demo found: its rows, its tables, and in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

Row = dict[str, float]  # perplexities by domain
Rows = dict[str, Row]  # by system
Groups = Mapping[str, Sequence[str]]  # domains that are taken together, by name

_COLUMNS = 4


def rows(
    forest: Mapping[str, Row],
    random_split: Mapping[str, Row],
    dense: Mapping[str, Row],
    after: Mapping[str, Row],
    merged: Mapping[str, Row],
) -> Rows:
    """The table's rows, out of what the evaluations found."""
    return {
        "seed": forest["seed"],
        "dense": dense["seed"],
        "random split": random_split["ensemble:all"],
        "top 1": forest["ensemble:top-1"],
        "top 2": forest["ensemble:top-2"],
        "all": forest["ensemble:all"],
        "uniform": forest["average:uniform"],
        "posterior": forest["average:posterior"],
        "Evo-Merged": merged["elm:merged"],
        "all, changed": after["ensemble:all"],
    }


def geometric_mean(values: Sequence[float]) -> float:
    """Of perplexities: that of the mean of their losses."""
    return math.exp(sum(map(math.log, values)) / len(values))


def means(found: Rows, groups: Groups) -> dict[str, Row]:
    """Of each system the mean perplexity of each group."""
    return {
        system: {
            name: geometric_mean([row[domain] for domain in some]) for name, some in groups.items()
        }
        for system, row in found.items()
    }


def tables(found: Rows, domains: Sequence[str], groups: Groups) -> Iterator[Table]:
    """Perplexities of the groups and of each domain, on narrow terminals too."""
    yield _table(means(found, groups), list(groups))
    for begin in range(0, len(domains), _COLUMNS):
        yield _table(found, domains[begin : begin + _COLUMNS])


def _table(values: Rows, columns: Sequence[str]) -> Table:
    shown = Table(title="Perplexity on test documents", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("", no_wrap=True)
    for name in columns:
        shown.add_column(name, justify="right")
    for system, row in values.items():
        shown.add_row(system, *(f"{row[name]:.1f}" for name in columns))
    return shown


def verdicts(found: Rows, groups: Groups, target: str) -> Iterator[str]:
    """What the paper leads one to expect, and whether it is so here."""
    by_group = means(found, groups)
    asked = [
        ("all", "dense", "trained", "the ensemble against the dense model of equal tokens"),
        ("all", "dense", "unseen", "the ensemble against the dense model of equal tokens"),
        ("all", "random split", "trained", "domains against a random split"),
        ("posterior", "uniform", "trained", "the posterior average against the uniform one"),
        ("posterior", "dense", "trained", "the posterior average against the dense model"),
    ]
    for system, other, group, text in asked:
        yield _verdict(f"{text}, {group} domains", by_group[system][group], by_group[other][group])
    for other in ("uniform", "posterior", "all"):
        text = f"Evo-Merged against {other}, {target}"
        yield _verdict(text, found["Evo-Merged"][target], found[other][target])


def _verdict(text: str, value: float, other: float) -> str:
    verb = "is ahead" if value < other else "is NOT ahead"
    return f"{text}: {verb}, {value:.1f} against {other:.1f}"
