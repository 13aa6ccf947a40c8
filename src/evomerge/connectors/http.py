"""Everything that speaks HTTP to the outside: clients, connections, timeouts.

The only module of the package that imports httpx; a test holds that rule. Tests reach no network:
they inject a transport.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from evomerge.connectors.http_errors import (
    BadAddressError,
    BadAnswerError,
    HttpError,
    NotConnectedError,
    StatusError,
    UnreachableError,
    parsed,
    refusal,
)
from evomerge.connectors.sse import ServerSentEvent
from evomerge.connectors.sse import events as server_sent_events

__all__ = [
    "BadAddressError",
    "BadAnswerError",
    "HttpClient",
    "HttpError",
    "NotConnectedError",
    "Params",
    "Part",
    "Reply",
    "ServerSentEvent",
    "StatusError",
    "Target",
    "Timeouts",
    "Transport",
    "UnreachableError",
    "Wire",
]

Transport = httpx.AsyncBaseTransport
Params = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Timeouts:
    """Seconds to wait for a connection, and for each read or write on it."""

    connect: float = 5.0
    read: float = 60.0
    write: float = 60.0


@dataclass(frozen=True)
class Part:
    """A file of a multipart body, read from disk while it is sent."""

    field: str
    path: Path


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


class Wire:
    """A connection pool that sends one request and reads one whole answer. Close it at the end.

    It follows no redirect, keeps no cookie, asks no proxy of the environment and looks up no name:
    it stands below httpx's client, which does these.
    """

    def __init__(
        self,
        *,
        connections: int = 100,
        transport: Transport | None = None,
        body_limit: int = 32 << 20,
    ) -> None:
        """
        Args:
            connections: open at once at most.
            transport: what carries the requests; the network by default.
            body_limit: bytes of an answer's body at most.
        """
        self._transport = transport or _fast_transport(connections)
        self._body_limit = body_limit

    async def close(self) -> None:
        """End every connection."""
        await self._transport.aclose()

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
        fields = {"Host": target.authority, "Accept-Encoding": "identity", **headers}
        if content is not None or method == "POST":
            fields["Content-Length"] = str(len(content or b""))
        request = httpx.Request(
            method,
            _url(target),
            headers=[
                (name.encode("ascii"), value.encode("ascii")) for name, value in fields.items()
            ],
            # Not as `content`, for which httpx would write the headers a second time.
            stream=httpx.ByteStream(content or b""),
            extensions={"timeout": _seconds(timeouts), "sni_hostname": target.host},
        )
        request.read()
        try:
            answer = await self._transport.handle_async_request(request)
            try:
                headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in answer.headers.raw
                }
                body = await self._body(answer, "content-encoding" not in headers)
            finally:
                await answer.aclose()
        except (httpx.TransportError, httpx.DecodingError, aiohttp.ClientError) as error:
            raise _failure(error) from error
        return Reply(answer.status_code, headers, body)

    async def _body(self, answer: httpx.Response, plain: bool) -> bytes:
        chunks, size, stream = [], 0, answer.stream
        # Asked not to compress, most servers do not: then the decoding steps are left out. (What
        # an injected transport has read already can be had in no other way.)
        coming: AsyncIterable[bytes] = answer.aiter_bytes()
        if plain and not answer.is_stream_consumed and isinstance(stream, httpx.AsyncByteStream):
            coming = stream
        async for chunk in coming:
            size += len(chunk)
            if size > self._body_limit:
                raise BadAnswerError(f"a body of more than {self._body_limit} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


class HttpClient:
    """A connection pool to one server. Use as an async context manager."""

    def __init__(
        self,
        base_url: str,
        *,
        key: str | None = None,
        timeouts: Timeouts | None = None,
        headers: Mapping[str, str] | None = None,
        transport: Transport | None = None,
    ) -> None:
        """
        Args:
            base_url: such as http://127.0.0.1:8000.
            key: sent as a bearer token; never shown in an error.
            timeouts: defaults suit an API on the same network.
            headers: sent with every request.
            transport: what carries the requests; the network by default.

        Raises:
            BadAddressError: base_url is not http(s), has no host, or carries a password.
        """
        timeouts = timeouts or Timeouts()
        bearer = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.AsyncClient(
            base_url=_checked(base_url),
            headers={**bearer, **(headers or {})},
            timeout=httpx.Timeout(
                timeouts.read, connect=timeouts.connect, write=timeouts.write, pool=timeouts.connect
            ),
            transport=transport,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self._client.__aexit__(*exc)

    async def json(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send `body` as JSON; the answer's JSON, or None for an empty answer.

        Raises:
            UnreachableError, StatusError, BadAnswerError.
        """
        async with self._answer(method, path, params=params, json=body, headers=headers) as answer:
            text = (await answer.aread()).decode("utf-8", "replace")
            return parsed(text) if text else None

    async def upload(
        self,
        path: str,
        parts: list[Part],
        *,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """POST files and form fields as multipart; the answer's JSON.

        Raises:
            OSError: a file cannot be read.
            UnreachableError, StatusError, BadAnswerError.
        """
        opened = [(part.field, (part.path.name, part.path.open("rb"))) for part in parts]
        try:
            async with self._answer(
                "POST", path, files=opened, data=dict(fields or {}), headers=headers
            ) as answer:
                return parsed((await answer.aread()).decode("utf-8", "replace"))
        finally:
            for _, (_, file) in opened:
                file.close()

    async def download(self, path: str, target: Path) -> int:
        """GET into the file `target`, which appears only when it is whole; its size in bytes.

        Raises:
            OSError: the file cannot be written.
            UnreachableError, StatusError, BadAnswerError.
        """
        partial = target.with_name(f".{target.name}.partial")
        size = 0
        try:
            async with self._answer("GET", path) as answer:
                with partial.open("wb") as file:
                    async for chunk in answer.aiter_bytes():
                        size += file.write(chunk)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return size

    async def events(
        self, path: str, *, params: Params | None = None, last_id: str | None = None
    ) -> AsyncIterator[ServerSentEvent]:
        """The server-sent events of `path`, from after `last_id` on, until the server ends them.

        Raises:
            UnreachableError, StatusError, BadAnswerError.
        """
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        async with self._answer("GET", path, params=params, headers=headers) as answer:
            kind = answer.headers.get("content-type", "")
            if not kind.startswith("text/event-stream"):
                raise BadAnswerError(f"expected an event stream from {path}, got {kind!r}")
            async for event in server_sent_events(answer.aiter_bytes()):
                yield event

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, **request: Any
    ) -> AsyncIterator[httpx.Response]:
        """The open answer of one request; transport errors inside the block become ours."""
        try:
            async with self._client.stream(method, path, **request) as answer:
                if answer.status_code >= 400:
                    raise refusal(
                        answer.status_code, (await answer.aread()).decode("utf-8", "replace")
                    )
                yield answer
        except httpx.TimeoutException as error:
            raise UnreachableError(f"{self._client.base_url} did not answer in time") from error
        except httpx.TransportError as error:
            raise UnreachableError(
                f"cannot reach {self._client.base_url}: {_words(error)}"
            ) from error
        except (httpx.DecodingError, httpx.TooManyRedirects) as error:
            raise BadAnswerError(f"{self._client.base_url}: {error}") from error


@lru_cache(maxsize=1024)
def _url(target: Target) -> httpx.URL:
    literal = f"[{target.address}]" if ":" in target.address else target.address
    return httpx.URL(f"{target.scheme}://{literal}:{target.port}{target.path}")


@lru_cache(maxsize=128)
def _seconds(timeouts: Timeouts) -> dict[str, float]:
    # Concurrency is bounded before: whoever comes here need not wait for the pool.
    return {
        "connect": timeouts.connect,
        "read": timeouts.read,
        "write": timeouts.write,
        "pool": timeouts.connect,
    }


def _fast_transport(connections: int) -> Transport:
    """aiohttp's connections: httpx's own pool looks at all of them for each request, which at 64
    costs milliseconds of processor time (benchmarks/connector_throughput.py)."""

    def session() -> aiohttp.ClientSession:
        # No limit of its own: whoever sends has been let through a gate of this width.
        pool = aiohttp.TCPConnector(limit=connections, keepalive_timeout=30.0, ssl=context)
        return aiohttp.ClientSession(connector=pool, cookie_jar=aiohttp.DummyCookieJar())

    # Of the environment, SSL_CERT_FILE and SSL_CERT_DIR alone: private authorities are common.
    context = httpx.create_ssl_context()
    return AiohttpTransport(client=session, verify=context)


def _failure(error: Exception) -> HttpError:
    """What went wrong below; httpx-aiohttp names a lost connection as one that never was."""
    found = error.__cause__ if isinstance(error.__cause__, aiohttp.ClientError) else error
    if isinstance(
        found,
        httpx.ConnectError
        | httpx.ConnectTimeout
        | aiohttp.ClientConnectorError
        | aiohttp.ConnectionTimeoutError,
    ):
        return NotConnectedError(f"cannot connect: {_words(found)}")
    if isinstance(found, httpx.TimeoutException | aiohttp.ServerTimeoutError):
        return UnreachableError("silent for too long")
    if isinstance(found, httpx.DecodingError | aiohttp.ClientResponseError):
        return BadAnswerError(f"not what HTTP promises: {_words(found)}")
    return UnreachableError(f"the connection was lost: {_words(found)}")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _checked(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise BadAddressError(f"base_url={base_url!r}: {error}") from error
    if url.userinfo:
        raise BadAddressError("base_url must carry no user or password; give the key by itself")
    if url.scheme not in ("http", "https") or not url.host:
        raise BadAddressError(f"base_url={base_url!r} must look like http://host:port")
    return url
