"""The wire below the connectors: one request out, one whole answer back, by aiohttp."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import aiohttp
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from evomerge.connectors.http_errors import (
    BadAnswerError,
    HttpError,
    NotConnectedError,
    UnreachableError,
)

BODY_LIMIT = 32 << 20


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for a connection, and for each read or write on it."""

    connect: float = 5.0
    read: float = 60.0
    write: float = 60.0


@dataclass(frozen=True)
class Target:
    """Where one request goes: a route of a server, at an address that was checked beforehand.

    Attributes:
        scheme: http or https.
        address: the numeric address to connect to; no name is looked up again.
        port: of the server.
        path: with everything behind the authority.
        host: the server's name, for the Host header and the TLS certificate.
        authority: the name with its port where that is not the scheme's own.
    """

    scheme: str
    address: str
    port: int
    path: str
    host: str
    authority: str


@dataclass(frozen=True)
class Reply:
    """One whole answer, whatever its status.

    Attributes:
        headers: names in lower case; of several with one name, the last.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire(Protocol):
    """A connection pool that sends one request and reads one whole answer. Close it at the end.

    It follows no redirect, keeps no cookie, asks no proxy of the environment and looks up no name.
    """

    async def send(
        self,
        method: str,
        target: Target,
        *,
        headers: Mapping[str, str],
        content: bytes | None,
        timeouts: Timeouts,
    ) -> Reply:
        """The answer of one request; cancelling ends its connection.

        Raises:
            NotConnectedError: nothing was sent.
            UnreachableError: the connection was lost, or silent for too long.
            BadAnswerError: not HTTP, or a body beyond the limit.
        """
        ...

    async def close(self) -> None:
        """End every connection."""
        ...


class NetworkWire:
    """The wire to the network.

    aiohttp alone: httpx's pool looks at all of its connections for each request, which at 64 of
    them costs milliseconds of processor time, and its requests and answers cost as much again as
    aiohttp's own (benchmarks/connector_throughput.py).
    """

    def __init__(
        self, context: ssl.SSLContext, *, connections: int = 100, body_limit: int = BODY_LIMIT
    ) -> None:
        """
        Args:
            context: whose certificates are trusted.
            connections: open at once at most.
            body_limit: bytes of an answer's body at most.
        """
        self._context = context
        self._connections = connections
        self._body_limit = body_limit
        self._opened: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """See `Wire.close`."""
        if self._opened is not None:
            await self._opened.close()

    async def send(
        self,
        method: str,
        target: Target,
        *,
        headers: Mapping[str, str],
        content: bytes | None,
        timeouts: Timeouts,
    ) -> Reply:
        """See `Wire.send`."""
        try:
            async with self._session().request(
                method,
                _url(target),
                headers=sent_headers(target, headers),
                data=content,
                allow_redirects=False,
                timeout=_seconds(timeouts),
                server_hostname=target.host,
            ) as answer:
                found = {name.lower(): value for name, value in answer.headers.items()}
                body = await read_body(answer.content.iter_any(), self._body_limit)
                return Reply(answer.status, found, body)
        except aiohttp.ClientError as error:
            raise _failure(error) from error

    def _session(self) -> aiohttp.ClientSession:
        # A session belongs to the loop that it is first used in.
        if self._opened is None:
            pool = aiohttp.TCPConnector(
                limit=self._connections, keepalive_timeout=30.0, ssl=self._context
            )
            self._opened = aiohttp.ClientSession(
                connector=pool, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._opened


def address(target: Target) -> str:
    """The URL of a target, by its numeric address."""
    literal = f"[{target.address}]" if ":" in target.address else target.address
    return f"{target.scheme}://{literal}:{target.port}{target.path}"


def sent_headers(target: Target, headers: Mapping[str, str]) -> dict[str, str]:
    """What is sent, whoever carries it: small answers are not worth compressing."""
    return {"Host": target.authority, "Accept-Encoding": "identity", **headers}


async def read_body(coming: AsyncIterable[bytes], limit: int) -> bytes:
    """A whole body.

    Raises:
        BadAnswerError: it is longer than `limit` bytes; the rest is not read.
    """
    chunks, size = [], 0
    async for chunk in coming:
        size += len(chunk)
        if size > limit:
            raise BadAnswerError(f"a body of more than {limit} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def in_words(error: BaseException) -> str:
    """What an error says, or what it is."""
    return str(error) or type(error).__name__


@lru_cache(maxsize=1024)
def _url(target: Target) -> URL:
    return URL(address(target), encoded=True)


@lru_cache(maxsize=128)
def _seconds(timeouts: Timeouts) -> aiohttp.ClientTimeout:
    # Concurrency is bounded before: whoever comes here need not wait for the pool.
    return aiohttp.ClientTimeout(
        connect=timeouts.connect, sock_connect=timeouts.connect, sock_read=timeouts.read
    )


def _failure(error: aiohttp.ClientError) -> HttpError:
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        return NotConnectedError(f"cannot connect: {in_words(error)}")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return UnreachableError("silent for too long")
    if isinstance(error, aiohttp.ClientResponseError) or isinstance(
        error.__cause__, ContentEncodingError
    ):
        return BadAnswerError(f"not what HTTP promises: {in_words(error)}")
    return UnreachableError(f"the connection was lost: {in_words(error)}")
