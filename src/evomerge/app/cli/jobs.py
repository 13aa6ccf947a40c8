"""Commands over merge jobs."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from evomerge.app.cli import render, result, run
from evomerge.app.cli.session import AsJson, Limit, Session, collect
from evomerge.app.client import EvoMergeClient, Json

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
PANEL = "Jobs"

jobs = typer.Typer(no_args_is_help=True, help="Merge jobs: list, show, events.")


class Status(StrEnum):
    """What a list of jobs may be narrowed to."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(jobs, name="jobs", rich_help_panel=PANEL)
    app.command(rich_help_panel=PANEL)(follow)
    for verb in ("cancel", "pause", "resume"):
        app.command(verb, rich_help_panel=PANEL)(_command(verb))
    app.command("result", rich_help_panel=PANEL)(show_result)
    app.command(rich_help_panel=PANEL)(download)


@jobs.command("list")
def list_(
    ctx: typer.Context,
    status: Annotated[Status | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    session = ctx.ensure_object(Session)
    filters = {"status": status.value} if status else {}
    found = session.call(lambda c: collect(c.list("merge_jobs", limit=limit, filters=filters)))
    session.show(found, render.jobs, as_json)


@jobs.command()
def show(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show a job: its state, its spec, its inputs."""
    session = ctx.ensure_object(Session)
    session.show(session.call(lambda c: c.get("merge_jobs", job)), render.fields, as_json)


@jobs.command()
def events(
    ctx: typer.Context,
    job: JobId,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print what a job has written in its history."""
    session = ctx.ensure_object(Session)

    async def printed(client: EvoMergeClient) -> None:
        history = client.event_stream(job) if follow else client.events(job)
        async for event in history:
            typer.echo(render.json_line(event) if as_json else render.event(event))

    session.call(printed)


def follow(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Follow a job to its end, then print its result."""
    run.follow(ctx.ensure_object(Session), job, as_json=as_json)


def _command(verb: Literal["cancel", "pause", "resume"]) -> Callable[..., None]:
    def command(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
        session = ctx.ensure_object(Session)
        now = session.call(lambda client: client.command(job, verb))
        session.show(now, lambda job: f"{job['id']} {job['status']}", as_json)

    command.__doc__ = {
        "cancel": "End a job for good; what it has scored stays readable.",
        "pause": "Stop a job at its next generation and keep its place.",
        "resume": "Queue a paused or failed job again; nothing is scored twice.",
    }[verb]
    return command


def show_result(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Print the winner beside its baselines, and what it is made of."""
    session = ctx.ensure_object(Session)
    session.show(session.call(lambda client: client.result(job)), result.tables, as_json)


def download(
    ctx: typer.Context,
    job: JobId,
    folder: Annotated[Path, typer.Argument(help="Where the files go; made if missing.")],
    as_json: AsJson = False,
) -> None:
    """Download what a job made: the merged adapter, its manifest, its model card."""
    session = ctx.ensure_object(Session)
    folder.mkdir(parents=True, exist_ok=True)

    async def fetched(client: EvoMergeClient) -> list[Json]:
        return [
            {"file": str(path), "bytes": size}
            async for path, size in client.download_all(job, folder)
        ]

    session.show(session.call(fetched), render.files, as_json)
