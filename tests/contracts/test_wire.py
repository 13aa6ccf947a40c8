"""Every wire: one request out, one whole answer back, whatever carries it. Real servers."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from tests.support.provider import CutOff, Hang, Provider, Reset, Send, provider

from evomerge.connectors.http import TransportWire
from evomerge.connectors.http_errors import (
    BadAnswerError,
    NotConnectedError,
    UnreachableError,
)
from evomerge.connectors.wire import NetworkWire, Reply, Target, Timeouts, Wire

LIMIT = 1000
ZIPPED = {"content-encoding": "gzip"}


def network() -> Wire:
    return NetworkWire(httpx.create_ssl_context(), connections=2, body_limit=LIMIT)


def transport() -> Wire:
    return TransportWire(httpx.AsyncHTTPTransport(), body_limit=LIMIT)


@pytest.fixture(params=[network, transport])
async def wire(request: pytest.FixtureRequest) -> AsyncIterator[Wire]:
    make: Callable[[], Wire] = request.param
    made = make()
    yield made
    await made.close()


def at(port: int, path: str = "/v1/it?n=%2F") -> Target:
    return Target("http", "127.0.0.1", port, path, "models.net", f"models.net:{port}")


async def sent(
    wire: Wire, server: Provider, *, content: bytes | None = b"{}", read: float = 5.0
) -> Reply:
    return await wire.send(
        "POST",
        at(server.port),
        headers={"X-Own": "1", "Content-Type": "application/json"},
        content=content,
        timeouts=Timeouts(read=read),
    )


async def test_what_is_sent_and_what_comes_back(wire: Wire) -> None:
    async with provider(lambda _: Send("hello", 404, {"X-Its-Own": "2"})) as server:
        reply = await sent(wire, server)
        (asked,) = server.requests
    assert (reply.status, reply.body, reply.headers["x-its-own"]) == (404, b"hello", "2")
    assert (asked.method, asked.path) == ("POST", "/v1/it?n=%2F")
    assert asked.headers["host"] == f"models.net:{server.port}"
    assert asked.headers["accept-encoding"] == "identity"
    assert (asked.headers["x-own"], asked.headers["content-length"]) == ("1", "2")


async def test_an_empty_post_says_that_it_is_empty(wire: Wire) -> None:
    async with provider(lambda _: Send("x")) as server:
        await sent(wire, server, content=None)
        assert server.requests[0].headers["content-length"] == "0"


async def test_connections_are_used_again(wire: Wire) -> None:
    async with provider(lambda _: Send("x")) as server:
        for _ in range(3):
            await sent(wire, server)
        assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_redirect_is_not_followed(wire: Wire) -> None:
    async with provider(lambda _: Send("", 302, {"location": "/elsewhere"})) as server:
        assert (await sent(wire, server)).status == 302
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer", [Send("x" * 2000), Send(gzip.compress(b"x" * 2000), headers=ZIPPED)]
)
async def test_a_body_beyond_the_limit_is_not_read(wire: Wire, answer: Send) -> None:
    async with provider(lambda _: answer) as server:
        with pytest.raises(BadAnswerError, match="more than 1000 bytes"):
            await sent(wire, server)


async def test_an_answer_compressed_all_the_same_is_read(wire: Wire) -> None:
    async with provider(lambda _: Send(gzip.compress(b"hi"), headers=ZIPPED)) as server:
        assert (await sent(wire, server)).body == b"hi"


async def test_what_only_says_that_it_is_compressed(wire: Wire) -> None:
    async with provider(lambda _: Send("hi", headers=ZIPPED)) as server:
        with pytest.raises(BadAnswerError, match="not what HTTP promises"):
            await sent(wire, server)


@pytest.mark.parametrize("fault", [Reset(), CutOff(Send("x" * 500))])
async def test_a_lost_connection(wire: Wire, fault: Reset | CutOff) -> None:
    async with provider(lambda _: fault) as server:
        with pytest.raises(UnreachableError, match="lost") as caught:
            await sent(wire, server)
    assert not isinstance(caught.value, NotConnectedError)


async def test_silence(wire: Wire) -> None:
    async with provider(lambda _: Hang()) as server:
        with pytest.raises(UnreachableError, match="silent for too long"):
            await sent(wire, server, read=0.2)


async def test_nobody_there_is_told_apart(wire: Wire) -> None:
    async with provider(lambda _: Send("x")) as gone:
        pass
    with pytest.raises(NotConnectedError):
        await sent(wire, gone)
