"""A real HTTP server on loopback that answers as it is told, faults included.

Below any framework, because most faults are below them: bodies cut off, resets, slow drips.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Send:
    """A whole answer."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        content = self.body
        if not isinstance(content, bytes):
            content = (content if isinstance(content, str) else json.dumps(content)).encode()
        headers = {"content-type": "application/json", "content-length": str(len(content))}
        lines = [f"HTTP/1.1 {self.status} Whatever"]
        lines += [f"{name}: {value}" for name, value in (headers | dict(self.headers)).items()]
        return "\r\n".join([*lines, "", ""]).encode() + content


@dataclass(frozen=True)
class CutOff:
    """The first half of an answer, then the end of the connection."""

    answer: Send


@dataclass(frozen=True)
class Reset:
    """The connection is reset before any answer."""


@dataclass(frozen=True)
class Drip:
    """One byte of a body at a time, for ever; never silent for long."""


@dataclass(frozen=True)
class Hang:
    """Nothing, until the client goes away."""


Action = Send | CutOff | Reset | Drip | Hang
Answer = Callable[[Request], Action]


@dataclass
class Provider:
    """The running server.

    Attributes:
        answer: what it does when no fault is waiting.
        faults: done first, one a request.
        requests: all that came in.
        most_at_once: requests that were under way together at most.
        connections: that were opened.
        arrived: set at each request. left: set when a client went away unanswered.
    """

    answer: Answer
    faults: deque[Action] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    port: int = 0
    at_once: int = 0
    most_at_once: int = 0
    connections: int = 0
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (request := await _request(reader)) is not None:
                self.requests.append(request)
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                self.arrived.set()
                try:
                    action = self.faults.popleft() if self.faults else self.answer(request)
                    await asyncio.sleep(0)
                    await self._do(action, reader, writer)
                finally:
                    self.at_once -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            self.left.set()
        finally:
            writer.close()

    async def _do(
        self, action: Action, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if isinstance(action, Send):
            writer.write(action.encoded())
            await writer.drain()
        elif isinstance(action, CutOff):
            whole = action.answer.encoded()
            writer.write(whole[: len(whole) - 10])
            await writer.drain()
            raise ConnectionAbortedError
        elif isinstance(action, Reset):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            raise ConnectionAbortedError
        elif isinstance(action, Drip):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
            while not reader.at_eof():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
            self.left.set()
        else:
            await reader.read(1)
            self.left.set()
            raise ConnectionAbortedError


@asynccontextmanager
async def provider(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Provider]:
    """A server of its own port, ended with the block."""
    running = Provider(answer)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(running.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    running.port = server.sockets[0].getsockname()[1]
    try:
        yield running
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readline()
    if not head:
        return None
    method, path, _ = head.decode().split(" ")
    headers: dict[str, str] = {}
    while (line := (await reader.readline()).decode().strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    content = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, json.loads(content) if content else None)
