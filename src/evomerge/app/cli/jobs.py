"""Commands over jobs: merges, and those over forests."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from evomerge.app.cli import render, result, run
from evomerge.app.cli.resources import add_reading
from evomerge.app.cli.session import AsJson, Limit, Session, collect
from evomerge.app.client import EvoMergeClient, Json

JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id.")]
PANEL = "Jobs"

jobs = typer.Typer(no_args_is_help=True, help="Jobs: list merges; show any, and its events.")
forest_jobs = typer.Typer(
    no_args_is_help=True,
    help="Jobs over forests: list, show. Every other command of jobs takes their ids too.",
)


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
    add_reading(forest_jobs, "forest_jobs", render.forest_jobs)
    app.add_typer(forest_jobs, name="forest-jobs", rich_help_panel=PANEL)
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
    """List merge jobs, newest first."""
    session = ctx.ensure_object(Session)
    filters = {"status": status.value} if status else {}
    found = session.call(lambda c: collect(c.list("merge_jobs", limit=limit, filters=filters)))
    session.show(found, render.jobs, as_json)


@jobs.command()
def show(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Show a job: its state, its spec, its inputs."""
    session = ctx.ensure_object(Session)
    session.show(session.call(lambda c: c.job(job)), render.fields, as_json)


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
        "cancel": "End a job for good.",
        "pause": "Stop a job soon and keep its place.",
        "resume": "Queue a paused or failed job again; it goes on where it was.",
    }[verb]
    return command


def show_result(ctx: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Print what a job found: a winner beside its baselines, a training, a table of perplexity."""
    session = ctx.ensure_object(Session)
    session.show(session.call(lambda client: client.result(job)), result.tables, as_json)


def download(
    ctx: typer.Context,
    job: JobId,
    folder: Annotated[Path, typer.Argument(help="Where the files go; made if missing.")],
    as_json: AsJson = False,
) -> None:
    """Download the files that a job made, such as the merged adapter and its manifest."""
    session = ctx.ensure_object(Session)
    folder.mkdir(parents=True, exist_ok=True)

    async def fetched(client: EvoMergeClient) -> list[Json]:
        return [
            {"file": str(path), "bytes": size}
            async for path, size in client.download_all(job, folder)
        ]

    session.show(session.call(fetched), render.files, as_json)
