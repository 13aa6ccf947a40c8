"""A way to a server that can be cut: connections drop, and new ones are refused."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Gateway:
    """Forwards a port of this machine to a server, while it is open.

    Attributes:
        port: where it listens, from the first `open` on.
    """

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        """Listen, on the same port as before."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*self._serving)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        ends = {writer}
        self._ends |= ends
        with suppress(OSError):
            there, back = await asyncio.open_connection(*self._upstream)
            ends.add(back)
            self._ends |= ends
            await asyncio.gather(_pipe(reader, back), _pipe(there, writer))
        for end in ends:
            end.close()
        self._ends -= ends
        self._serving.discard(task)


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass on what comes until either side ends, and then end the other."""
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()
