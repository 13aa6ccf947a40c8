"""What every command shares: where the server is, how to call it, where to print."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console, RenderableType

from evomerge.app.client import EvoMergeClient
from evomerge.connectors.http import Transport

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"

AsJson = Annotated[bool, typer.Option("--json", help="Print the server's JSON, for scripts.")]
Limit = Annotated[int, typer.Option(min=1, help="Print at most this many.")]


@dataclass
class Session:
    """One run of the program. Tests make their own, with a transport that reaches no network."""

    url: str = DEFAULT_URL
    key: str | None = None
    transport: Transport | None = None
    every: float = 0.5  # seconds between two looks at a job that is followed
    console: Console = field(default_factory=Console)
    messages: Console = field(default_factory=lambda: Console(stderr=True))

    def call(self, use: Callable[[EvoMergeClient], Awaitable[T]]) -> T:
        """The outcome of `use`, given a client; runs an event loop of its own."""

        async def with_client() -> T:
            async with EvoMergeClient(self.url, self.key, transport=self.transport) as client:
                return await use(client)

        return asyncio.run(with_client())

    def show(self, value: T, table: Callable[[T], RenderableType], as_json: bool) -> None:
        """Print `value` as a table for people, or as JSON for scripts."""
        if as_json:
            self.print_json(value)
        else:
            self.console.print(table(value))

    def print_json(self, value: Any) -> None:
        """Plain JSON on standard output, neither coloured nor wrapped."""
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def key_from_environment() -> str | None:
    """The client's key; an empty variable is none."""
    return os.environ.get("EVOMERGE_API_KEY") or None


async def collect(items: AsyncIterator[T]) -> list[T]:
    """Everything that an asynchronous iterator gives."""
    return [item async for item in items]
