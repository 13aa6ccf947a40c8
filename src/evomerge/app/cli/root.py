"""The `evomerge` program: its sub-commands, its options, and how it reports errors."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from evomerge.app.cli import base, forests, jobs, resources, run, service
from evomerge.app.cli.failures import REPORTED, exit_code, lines
from evomerge.app.cli.session import DEFAULT_URL, Session, key_from_environment
from evomerge.version import __version__

EPILOG = (
    "Exit codes: 0 done, 1 the job did not succeed, 2 wrong usage or bad input, "
    "3 the server could not be reached or failed."
)


class Reporting(TyperGroup):
    """Ends expected errors in one clear line a fault and an exit code, not in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except REPORTED as error:
            for line in lines(error):
                typer.secho(f"error: {line}", err=True, fg=typer.colors.RED)
            raise typer.Exit(exit_code(error)) from error


app = typer.Typer(
    name="evomerge",
    cls=Reporting,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # a local may hold a key
    epilog=EPILOG,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    url: Annotated[str, typer.Option(envvar="EVOMERGE_URL", help="The server.")] = DEFAULT_URL,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Merge language models: submit jobs, follow them, fetch what they found.

    The key of a server that asks for one comes from EVOMERGE_API_KEY alone, so that it never
    stands in a list of processes.
    """
    session = ctx.ensure_object(Session)
    session.url = url
    session.key = session.key or key_from_environment()


service.add_to(app)
run.add_to(app)
jobs.add_to(app)
resources.add_to(app)
forests.add_to(app)
app.add_typer(base.app, name="base")


def main() -> None:
    """Entry point of the installed program."""
    app()
