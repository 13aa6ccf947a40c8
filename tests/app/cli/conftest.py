"""A way to run a command against a table of answers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.app.cli.server import Server
from typer.testing import CliRunner, Result

from evomerge.app.cli import app
from evomerge.app.cli.session import Session

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run(server, *arguments)`: what the command printed, and its exit code."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("EVOMERGE_URL", raising=False)
    monkeypatch.delenv("EVOMERGE_API_KEY", raising=False)

    def invoke(server: Server | None, *arguments: str) -> Result:
        runner = CliRunner()
        session = Session(transport=server.transport() if server else None, every=0.0)
        return runner.invoke(app, list(arguments), obj=session)

    return invoke
