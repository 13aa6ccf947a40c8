"""`evomerge run`: submit a job file and follow the job to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.app.cli import jobfile, result
from evomerge.app.cli.failures import Exit, JobFailedError
from evomerge.app.cli.progress import JobProgress
from evomerge.app.cli.session import AsJson, Session
from evomerge.app.client import EvoMergeClient, Json


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command(rich_help_panel="Jobs")(run)


def run(
    ctx: typer.Context,
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job, as in docs/job-spec.")],
    detach: Annotated[bool, typer.Option("--detach", help="Submit only; print the id.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check it and estimate its cost; nothing runs.")
    ] = False,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key again gives the same job, not a second one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job and follow it to its result.

    Ctrl-C stops following; the job goes on.
    """
    session = ctx.ensure_object(Session)
    spec = jobfile.load(job)
    if dry_run:
        session.print_json(session.call(lambda client: client.estimate(spec)))
        return
    submitted = session.call(lambda c: c.submit(spec, idempotency_key=idempotency_key))
    if detach:
        if as_json:
            session.print_json(submitted)
        else:
            typer.echo(submitted["id"])
        return
    follow(session, submitted["id"], as_json=as_json)


def follow(session: Session, job: str, *, as_json: bool) -> None:
    """Show a job until it ends, then its result.

    Raises:
        JobFailedError: it ended without a result.
    """

    async def watched(client: EvoMergeClient) -> tuple[Json, Json | None]:
        last: Json = {}
        with JobProgress(session.messages) as progress:
            async for last in client.watch(job, every=session.every):
                progress.show(last)
        found = await client.result(job) if last["status"] == "succeeded" else None
        return last, found

    typer.echo(f"following {job}; Ctrl-C leaves it running", err=True)
    try:
        last, found = session.call(watched)
    except KeyboardInterrupt as stopped:
        typer.echo(f"{job} goes on: evomerge follow {job}, or evomerge cancel {job}", err=True)
        raise typer.Exit(Exit.OK) from stopped
    if found is None:
        raise JobFailedError(ending(last))
    session.show(found, result.tables, as_json)


def ending(job: Json) -> str:
    """How a job without a result ended, in one line."""
    error = job.get("error") or {}
    reason = f": {error['message']}" if error.get("message") else ""
    return f"{job['id']} {job['status']}{reason}"
