"""Commands that run the service itself: serve, worker, migrate, openapi."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from evomerge.app import event_loop

# The service's own modules are imported where they are used: a client should not wait for them.

DataDir = Annotated[
    Path | None, typer.Option(help="Datasets, uploads, artifacts and the embedded database.")
]
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (serve, worker, migrate, openapi):
        app.command(rich_help_panel="The service")(command)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind; loopback by default.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 picks a free one.")] = None,
    data_dir: DataDir = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="The API alone; workers run elsewhere.")
    ] = False,
) -> None:
    """Start the API, with one worker process beside it.

    An embedded SQLite database is created and migrated here; a Postgres is migrated once by
    `evomerge migrate`. Both processes end together; a worker that dies is started again.
    """
    from evomerge.app.cli import serving

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    settings = serving.read_settings(host=host, port=port, data_dir=data_dir)
    serving.check_binding(settings)
    serving.migrate_if_sqlite(settings)
    with serving.bind(settings.host, settings.port) as bound:
        url = serving.address(bound)
        typer.echo(f"Evo-Merging is at {url} (try {url}/docs); Ctrl-C ends it.")
        event_loop.run(serving.serve(settings, bound, worker=not no_worker))


def worker(
    data_dir: DataDir = None,
    end_with_parent: Annotated[
        bool, typer.Option("--end-with-parent", hidden=True, help="End when standard input does.")
    ] = False,
) -> None:
    """Start one more worker, anywhere that reaches the database and the data folder."""
    from evomerge.app.cli import serving

    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    settings = serving.read_settings(data_dir=data_dir)
    serving.migrate_if_sqlite(settings)
    event_loop.run(serving.work(settings, end_with_parent=end_with_parent))


def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to this version's schema. Safe to run again, and by several at once."""
    from evomerge.app.cli import serving

    revision = serving.migrate(serving.read_settings(data_dir=data_dir))
    typer.echo(f"The database is at revision {revision}.")


def openapi() -> None:
    """Print the HTTP API's OpenAPI document."""
    from evomerge.app.cli import serving
    from evomerge.app.main import create_app

    typer.echo(json.dumps(create_app(serving.read_settings()).openapi(), indent=2))
