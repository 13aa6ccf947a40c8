"""Server-sent events: a `text/event-stream`, read as it comes. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from evomerge.connectors.http_errors import parsed


@dataclass(frozen=True)
class ServerSentEvent:
    """One event of a `text/event-stream`."""

    data: str
    event: str = "message"
    id: str | None = None

    def json(self) -> Any:
        """The data as JSON.

        Raises:
            BadAnswerError: it is not JSON.
        """
        return parsed(self.data)


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[ServerSentEvent]:
    """Parse an event stream (WHATWG HTML, section 9.2.6)."""
    data: list[str] = []
    event, last_id = "message", None
    async for line in _lines(chunks):
        if not line:
            if data:
                yield ServerSentEvent("\n".join(data), event, last_id)
            data, event = [], "message"
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            event = value
        elif field == "id":
            last_id = value


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Split at newlines alone: str.splitlines would also cut inside JSON, at U+2028 say."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
