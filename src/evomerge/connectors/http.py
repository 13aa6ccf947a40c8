"""What speaks HTTP through httpx: a client of our own service, and injected transports.

The only module of the package that imports httpx; a test holds that rule. Tests reach no network:
they inject a transport.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import httpx

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
from evomerge.connectors.wire import (
    BODY_LIMIT,
    NetworkWire,
    Reply,
    Target,
    Timeouts,
    Wire,
    address,
    in_words,
    read_body,
    sent_headers,
)

__all__ = [
    "BadAddressError",
    "BadAnswerError",
    "HttpClient",
    "HttpError",
    "NotConnectedError",
    "Params",
    "Part",
    "ServerSentEvent",
    "StatusError",
    "Transport",
    "TransportWire",
    "UnreachableError",
    "open_wire",
]

Transport = httpx.AsyncBaseTransport
Params = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Part:
    """A file of a multipart body, read from disk while it is sent."""

    field: str
    path: Path


class TransportWire:
    """A wire over an injected httpx transport, as tests have it."""

    def __init__(self, transport: Transport, *, body_limit: int = BODY_LIMIT) -> None:
        """
        Args:
            transport: what carries the requests.
            body_limit: bytes of an answer's body at most.
        """
        self._transport = transport
        self._body_limit = body_limit

    async def close(self) -> None:
        """See `Wire.close`."""
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
        """See `Wire.send`."""
        request = httpx.Request(
            method,
            address(target),
            headers=sent_headers(target, headers),
            content=content,
            extensions={"timeout": _seconds(timeouts), "sni_hostname": target.host},
        )
        try:
            answer = await self._transport.handle_async_request(request)
            try:
                found = {name.lower(): value for name, value in answer.headers.multi_items()}
                body = await read_body(answer.aiter_bytes(), self._body_limit)
            finally:
                await answer.aclose()
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _failure(error) from error
        return Reply(answer.status_code, found, body)


def open_wire(transport: Transport | None, *, connections: int = 100) -> Wire:
    """A wire over `transport`, or to the network where it is None.

    Of the environment, SSL_CERT_FILE and SSL_CERT_DIR alone are heeded: private authorities are
    common.
    """
    if transport is not None:
        return TransportWire(transport)
    return NetworkWire(httpx.create_ssl_context(), connections=connections)


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
                f"cannot reach {self._client.base_url}: {in_words(error)}"
            ) from error
        except (httpx.DecodingError, httpx.TooManyRedirects) as error:
            raise BadAnswerError(f"{self._client.base_url}: {error}") from error


@lru_cache(maxsize=128)
def _seconds(timeouts: Timeouts) -> dict[str, float]:
    # Concurrency is bounded before: whoever comes here need not wait for the pool.
    return {
        "connect": timeouts.connect,
        "read": timeouts.read,
        "write": timeouts.write,
        "pool": timeouts.connect,
    }


def _failure(error: httpx.TransportError | httpx.DecodingError) -> HttpError:
    """What went wrong below."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return NotConnectedError(f"cannot connect: {in_words(error)}")
    if isinstance(error, httpx.TimeoutException):
        return UnreachableError("silent for too long")
    if isinstance(error, httpx.DecodingError):
        return BadAnswerError(f"not what HTTP promises: {in_words(error)}")
    return UnreachableError(f"the connection was lost: {in_words(error)}")


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
