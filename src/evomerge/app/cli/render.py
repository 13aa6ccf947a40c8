"""Tables of resources. Pure: JSON in, something that rich prints out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from evomerge.app.client import Json

Columns = Mapping[str, Callable[[Json], object]]

STATUS_STYLES = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "yellow",
    "paused": "yellow",
    "running": "cyan",
}


def status(word: str) -> Text:
    """A job's status in its colour."""
    return Text(word, STATUS_STYLES.get(word, ""))


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; a dash for none."""
    return "-" if value is None else f"{value:.{digits}f}"


def moment(seconds: object) -> str:
    """UTC seconds since 1970 as a date and time."""
    if not isinstance(seconds, int | float):
        return "-"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def table(*headings: str) -> Table:
    """An empty table in the one style of the program."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for heading in headings:
        made.add_column(heading, no_wrap=True)
    return made


def _a_line_each(columns: Columns) -> Callable[[Sequence[Json]], Table]:
    """What shows resources, a line each."""

    def shown(found: Sequence[Json]) -> Table:
        made = table(*columns)
        for row in found:
            cells = (value(row) for value in columns.values())
            made.add_row(*(cell if isinstance(cell, Text) else _plain(cell) for cell in cells))
        return made

    return shown


def _plain(cell: object) -> Text:
    # Text, so that a name in square brackets is not taken for markup.
    return Text("-" if cell is None else str(cell))


def _field(name: str, row: Json) -> object:
    return row.get(name)


def _of(*names: str) -> Columns:
    """Columns that show fields of their names."""
    return {name.replace("_", " "): partial(_field, name) for name in names}


_CREATED: Columns = {"created": lambda row: moment(row.get("created_at"))}
_STATUS: Columns = {"status": lambda row: status(row["status"])}

experts = _a_line_each(
    {
        **_of("id", "name", "kind", "base"),
        "rank": lambda row: row.get("info", {}).get("rank"),
        **_CREATED,
    }
)
pools = _a_line_each(
    {**_of("id", "name", "base"), "experts": lambda row: len(row["experts"]), **_CREATED}
)
datasets = _a_line_each({**_of("id", "name", "kind", "rows"), **_CREATED})
forests = _a_line_each(
    {
        **_of("id", "name"),
        "parameters": lambda row: row.get("architecture", {}).get("parameters"),
        "ELMs": lambda row: len(row["elms"]),
        **_CREATED,
    }
)
elms = _a_line_each({**_of("id", "name", "domain", "tokens", "own_tokens"), **_CREATED})
jobs = _a_line_each(
    {
        **_of("id", "name"),
        **_STATUS,
        "best loss": lambda row: number(row["progress"].get("best_loss")),
        "evaluations": lambda row: row["progress"].get("evaluations"),
        **_CREATED,
    }
)
forest_jobs = _a_line_each(
    {
        **_of("id", "type", "name"),
        "forest": lambda row: row["inputs"]["forest"],
        **_STATUS,
        "step": lambda row: row["progress"].get("step"),
        "loss": lambda row: number(row["progress"].get("loss")),
        **_CREATED,
    }
)
files = _a_line_each(_of("file", "bytes"))


def event(happened: Json) -> str:
    """One line of a job's history."""
    return f"{moment(happened['created_at'])} {happened['level']:5} {happened['message']}"


def json_line(value: Json) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def fields(resource: Json) -> Table:
    """One resource, a line a field; nested objects as dotted names."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _flat(resource):
        shown = moment(value) if name.endswith("_at") else value
        table.add_row(Text(name), Text("" if shown is None else str(shown)))
    return table


def _flat(resource: Json, prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in resource.items():
        if isinstance(value, dict) and value:
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs
