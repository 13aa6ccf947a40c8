"""Commands over what jobs are made of: experts, pools, datasets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType

from evomerge.app.cli import render
from evomerge.app.cli.failures import InputError
from evomerge.app.cli.jobfile import read_records
from evomerge.app.cli.session import AsJson, Limit, Session, collect
from evomerge.app.client import Collection, EvoMergeClient, Json

PANEL = "What jobs are made of"
Rows = Callable[[list[Json]], RenderableType]
Name = Annotated[str | None, typer.Option(help="By default the file's or folder's name.")]
Base = Annotated[
    str | None,
    typer.Option(
        help="Name of the base model on the server; by default the one that the adapter names."
    ),
]
ByPath = Annotated[
    bool, typer.Option("--by-path", help="The server reads it where it lies; nothing is uploaded.")
]

experts = typer.Typer(no_args_is_help=True, help="Experts: the members of pools.")
pools = typer.Typer(no_args_is_help=True, help="Pools: named lists of experts over one base.")
datasets = typer.Typer(
    no_args_is_help=True, help="Datasets: what a merge is searched and shown on."
)


def add_to(app: typer.Typer) -> None:
    """Register the three groups."""
    groups: tuple[tuple[Collection, typer.Typer, Rows], ...] = (
        ("experts", experts, render.experts),
        ("pools", pools, render.pools),
        ("datasets", datasets, render.datasets),
    )
    for name, group, rows in groups:
        add_reading(group, name, rows)
        group.command("delete")(deletion(name))
        app.add_typer(group, name=name, rich_help_panel=PANEL)


def add_reading(group: typer.Typer, collection: Collection, rows: Rows) -> None:
    """Register `list` and `show` of one collection."""

    def list_(ctx: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
        session = ctx.ensure_object(Session)
        found = session.call(lambda client: collect(client.list(collection, limit=limit)))
        session.show(found, rows, as_json)

    def show(
        ctx: typer.Context,
        id_or_name: Annotated[str, typer.Argument(metavar="ID")],
        as_json: AsJson = False,
    ) -> None:
        session = ctx.ensure_object(Session)
        found = session.call(lambda client: client.get(collection, id_or_name))
        session.show(found, render.fields, as_json)

    group.command("list", help="List them, newest first.")(list_)
    group.command("show", help="Show one, by id or name.")(show)


def deletion(collection: Collection) -> Callable[..., None]:
    """The command `delete` of one collection."""

    def delete(
        ctx: typer.Context, id_or_name: Annotated[str, typer.Argument(metavar="ID")]
    ) -> None:
        """Forget one that nothing else needs."""
        ctx.ensure_object(Session).call(lambda client: client.delete(collection, id_or_name))

    return delete


@experts.command("add")
def add_expert(
    ctx: typer.Context,
    folder: Annotated[Path, typer.Argument(help="adapter_config.json and its safetensors.")],
    base: Base = None,
    name: Name = None,
    by_path: ByPath = False,
    as_json: AsJson = False,
) -> None:
    """Register a LoRA adapter, by upload or where the server can read it."""
    session = ctx.ensure_object(Session)
    folder = folder.absolute()
    name = name or folder.name
    added = session.call(
        lambda client: (
            client.register_expert(folder, base=base, name=name)
            if by_path
            else client.upload_expert(folder, base=base, name=name)
        )
    )
    session.show(added, render.fields, as_json)


@experts.command("add-api")
def add_api_experts(
    ctx: typer.Context,
    file: Annotated[
        Path, typer.Argument(help="YAML: one expert's fields, or a list of them for several.")
    ],
    as_json: AsJson = False,
) -> None:
    """Register models behind APIs: base_url, model, prompt, price, name of a credential."""
    session = ctx.ensure_object(Session)
    bodies = [{"kind": "api", **fields} for fields in read_records(file)]

    async def add(client: EvoMergeClient) -> list[Json]:
        return [await client.create("experts", body) for body in bodies]

    session.show(session.call(add), render.experts, as_json)


@experts.command("check")
def check_expert(
    ctx: typer.Context,
    id_or_name: Annotated[str, typer.Argument(metavar="ID")],
    as_json: AsJson = False,
) -> None:
    """Probe an API expert again."""
    session = ctx.ensure_object(Session)
    session.show(session.call(lambda c: c.check_expert(id_or_name)), render.fields, as_json)


@pools.command("add")
def add_pool(
    ctx: typer.Context,
    name: str,
    experts: Annotated[list[str] | None, typer.Argument(help="Ids or names, in order.")] = None,
    folders: Annotated[
        str | None, typer.Option(help="A pattern of folders on the server, such as 'pool/*'.")
    ] = None,
    base: Base = None,
    as_json: AsJson = False,
) -> None:
    """Make a pool out of experts, or register every adapter below a pattern of folders at once."""
    if (folders is None) == (not experts):
        raise InputError("give either experts or --folders")
    if experts and base is not None:
        raise InputError("--base goes with --folders; experts have theirs already")
    session = ctx.ensure_object(Session)
    body: Json = {"name": name}
    body |= {"experts": experts} if experts else {"folders": folders}
    if base is not None:
        body["base"] = base
    session.show(session.call(lambda c: c.create("pools", body)), render.fields, as_json)


@datasets.command("add")
def add_dataset(
    ctx: typer.Context,
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV or Parquet.")],
    name: Name = None,
    by_path: ByPath = False,
    as_json: AsJson = False,
) -> None:
    """Register a dataset, by upload or where the server can read it."""
    session = ctx.ensure_object(Session)
    file = file.absolute()
    name = name or file.stem
    added = session.call(
        lambda client: (
            client.register_dataset(file, name=name)
            if by_path
            else client.upload_dataset(file, name=name)
        )
    )
    session.show(added, render.fields, as_json)
