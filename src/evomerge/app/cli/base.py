"""Commands over base models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evomerge.app.cli.failures import InputError

app = typer.Typer(no_args_is_help=True, help="Base models on this machine.")


@app.callback()
def base() -> None:
    """Base models on this machine."""


@app.command()
def convert(
    gguf: Annotated[Path, typer.Argument(help="A GGUF file.")],
    folder: Annotated[Path, typer.Argument(help="Where the safetensors folder is written.")],
) -> None:
    """Turn a GGUF file into a folder that the service can use as a base model."""
    try:
        from evomerge.connectors.local import gguf as converter
    except ModuleNotFoundError as error:
        raise InputError(f"this needs {error.name}: pip install 'evo-merging[local]'") from error
    converter.convert_gguf(gguf, folder)
    typer.echo(f'{folder} is ready: EVOMERGE_BASES=\'{{"NAME": "{folder.absolute()}"}}\'')
