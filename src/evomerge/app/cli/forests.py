"""Commands over forests and their ELMs."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from evomerge.app.cli import render
from evomerge.app.cli.failures import InputError
from evomerge.app.cli.resources import PANEL, add_reading, deletion
from evomerge.app.cli.session import AsJson, Limit, Session, collect
from evomerge.app.client import Json

Forest = Annotated[str, typer.Argument(metavar="FOREST", help="Id or name.")]
ElmName = Annotated[str | None, typer.Option(help="By default its domain.")]
Domain = Annotated[
    str | None, typer.Option(help="What it is expert in; by default what its elm.json says.")
]
Prior = Annotated[
    list[str] | None,
    typer.Option(help="What an ELM weighs before a text, as NAME=WEIGHT; once for each."),
]

forests = typer.Typer(
    no_args_is_help=True, help="Forests: expert language models (ELMs) that come from one seed."
)


class Mode(StrEnum):
    """Where the prior of an ensemble comes from."""

    CACHED = "cached"
    UPDATING = "updating"
    UNIFORM = "uniform"


class History(StrEnum):
    """What the posterior reads."""

    FULL = "full"
    PREVIOUS = "previous"


class TopKKind(StrEnum):
    """When it is chosen which ELMs speak."""

    STATIC = "static"
    TOKEN = "token"


class Weighting(StrEnum):
    """What weighs the ELMs."""

    POSTERIOR = "posterior"
    ROUTER = "router"


def add_to(app: typer.Typer) -> None:
    """Register the group."""
    add_reading(forests, "forests", render.forests)
    forests.command("delete")(deletion("forests"))
    app.add_typer(forests, name="forests", rich_help_panel=PANEL)


@forests.command("add")
def add_forest(
    ctx: typer.Context,
    name: str,
    seed: Annotated[
        str | None, typer.Option(help="Folder of the seed's checkpoint, on the server.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="Name of a base model on the server, as the seed.")
    ] = None,
    job: Annotated[
        str | None, typer.Option(help="Id of a train_seed job that made the seed.")
    ] = None,
    elm: Annotated[
        list[str] | None,
        typer.Option(help="Folder of an ELM's checkpoint, on the server; once for each."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a forest over a seed, empty or of checkpoints that are there already."""
    sources = {"path": seed, "base": base, "job": job}
    source = {field: value for field, value in sources.items() if value is not None}
    if len(source) != 1:
        raise InputError("give one of --seed, --base and --job")
    body: Json = {"name": name, "seed": source}
    if elm:
        body["elms"] = [{"path": path} for path in elm]
    session = ctx.ensure_object(Session)
    session.show(session.call(lambda c: c.create("forests", body)), render.fields, as_json)


@forests.command("set")
def set_ensemble(
    ctx: typer.Context,
    forest: Forest,
    mode: Annotated[Mode | None, typer.Option(help="Where the prior comes from.")] = None,
    prior: Prior = None,
    no_prior: Annotated[
        bool, typer.Option("--no-prior", help="Every ELM weighs the same before a text.")
    ] = False,
    history: Annotated[History | None, typer.Option(help="What the posterior reads.")] = None,
    top_k: Annotated[
        int | None, typer.Option(min=0, help="How many ELMs speak at most; 0 for all.")
    ] = None,
    top_k_kind: Annotated[
        TopKKind | None, typer.Option(help="static: chosen once, by the prior; token: at each.")
    ] = None,
    weighting: Annotated[
        Weighting | None, typer.Option(help="What weighs the ELMs: posterior, or the router.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change how the ELMs of a forest speak together; what is not given stays."""
    if prior and no_prior:
        raise InputError("give either --prior or --no-prior")
    given = {
        "mode": mode,
        "history": history,
        "top_k_kind": top_k_kind,
        "weighting": weighting,
    }
    ensemble: dict[str, Any] = {
        field: value.value for field, value in given.items() if value is not None
    }
    if prior or no_prior:
        ensemble["prior"] = _weights(prior) if prior else None
    if top_k is not None:
        ensemble["top_k"] = top_k or None
    session = ctx.ensure_object(Session)
    changed = session.call(lambda c: c.update_forest(forest, ensemble=ensemble))
    session.show(changed, render.fields, as_json)


@forests.command("elms")
def list_elms(
    ctx: typer.Context, forest: Forest, limit: Limit = 100, as_json: AsJson = False
) -> None:
    """List the ELMs of a forest, in order."""
    session = ctx.ensure_object(Session)
    found = session.call(lambda c: collect(c.elms(forest, limit=limit)))
    session.show(found, render.elms, as_json)


@forests.command("add-elm")
def add_elm(
    ctx: typer.Context,
    forest: Forest,
    folder: Annotated[
        str | None, typer.Argument(help="A checkpoint with its elm.json, on the server.")
    ] = None,
    seed: Annotated[bool, typer.Option("--seed", help="The forest's seed, as it is.")] = False,
    name: ElmName = None,
    domain: Domain = None,
    as_json: AsJson = False,
) -> None:
    """Add a checkpoint of the forest's lineage, or the seed itself, as an ELM."""
    if (folder is None) == (not seed):
        raise InputError("give either a folder or --seed")
    body: Json = {"seed": True} if seed else {"path": folder}
    more = {"name": name, "domain": domain}
    body |= {field: value for field, value in more.items() if value is not None}
    session = ctx.ensure_object(Session)
    session.show(session.call(lambda c: c.add_elm(forest, body)), render.fields, as_json)


@forests.command("remove-elm")
def remove_elm(
    ctx: typer.Context,
    forest: Forest,
    elm: Annotated[str, typer.Argument(metavar="ELM", help="Id or name.")],
) -> None:
    """Take an ELM out of its forest; the last one stays."""
    ctx.ensure_object(Session).call(lambda c: c.remove_elm(forest, elm))


@forests.command("export")
def export(
    ctx: typer.Context,
    forest: Forest,
    file: Annotated[Path, typer.Argument(help="The zip file to write.")],
    as_json: AsJson = False,
) -> None:
    """Write a whole forest into one zip file: forest.json, the seed, every ELM."""
    session = ctx.ensure_object(Session)
    size = session.call(lambda c: c.export_forest(forest, file))
    session.show([{"file": str(file), "bytes": size}], render.files, as_json)


def _weights(given: Sequence[str]) -> dict[str, float]:
    """Weights by name.

    Raises:
        InputError: an entry is not NAME=WEIGHT, or a name stands twice.
    """
    weights: dict[str, float] = {}
    for entry in given:
        name, _, weight = entry.rpartition("=")
        try:
            value = float(weight)
        except ValueError as error:
            raise InputError(f"--prior {entry!r}: must be NAME=WEIGHT") from error
        if not name:
            raise InputError(f"--prior {entry!r}: must be NAME=WEIGHT")
        if name in weights:
            raise InputError(f"--prior {entry!r}: {name!r} stands twice")
        weights[name] = value
    return weights
