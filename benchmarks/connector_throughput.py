"""What the connectors cost: throughput and processor time a request, beside their peers.

    python benchmarks/connector_throughput.py [--requests 2000] [--concurrency 64] [--latency 0.05]
                                             [--ways "bare aiohttp"]

One process serves OpenAI-shaped answers on loopback after a fixed latency. It is asked through our
connector, through bare aiohttp, bare httpx, and the official openai client, in turns. Each turn's
throughput is given as a share of the ideal (concurrency / latency), and of what can be had of this
server on this machine: a client that writes bytes made beforehand to sockets and waits for the
answers, with no HTTP at all. The latency is that client's too, over the server's nominal one: both
event loops round timers to milliseconds. The processor time is this process's own. Ratios of one
run are comparable, its seconds are not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

import aiohttp
import httpx
import openai

from evomerge.app import event_loop
from evomerge.connectors.credentials import Credential
from evomerge.connectors.hosts import HostPolicy
from evomerge.connectors.limits import EndpointLimits
from evomerge.connectors.question import Endpoint, Message, Question, Sampling
from evomerge.connectors.registry import Connectors

KEY = "sk-benchmark"
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Paris."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 20, "completion_tokens": 2, "total_tokens": 22},
    }
).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(ANSWER),
    ANSWER,
)

Ask = Callable[[int], Awaitable[str]]


@dataclass(frozen=True)
class Turn:
    """One way, once.

    Attributes:
        share: of the ideal throughput.
        cpu_ms: milliseconds of our processor a request.
        latency: mean seconds of a request, our own share included.
    """

    share: float
    cpu_ms: float
    latency: float


class Provider(asyncio.Protocol):
    """Answers each request after a latency. No more of HTTP than that, to leave the cores free."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, end, rest = self.buffer.partition(b"\r\n\r\n")
        if not end:
            return
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        if len(rest) >= size:
            self.buffer = rest[size:]
            asyncio.get_running_loop().call_later(self.latency, self.answer)

    def answer(self) -> None:
        self.transport.write(RESPONSE)


def serve(port: Connection, latency: float) -> None:
    """The provider's process: tells its port and runs until it is ended."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Provider(latency), "127.0.0.1", 0, backlog=1024)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    event_loop.run(run())


@contextmanager
def provider(latency: float) -> Iterator[str]:
    """Base URL of a provider in a process of its own."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(there, latency), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}/v1"
    finally:
        process.terminate()
        process.join()


def messages(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"What is the capital of country {number}?"}]


@asynccontextmanager
async def ours(base_url: str, concurrency: int) -> AsyncIterator[Ask]:
    connectors = Connectors(
        HostPolicy.of(["127.0.0.1"], ["127.0.0.0/8"]),
        {"key": Credential(("127.0.0.1",), env="KEY")},
        {"127.0.0.1": EndpointLimits(concurrency=concurrency)},
        environment={"KEY": KEY},
    )
    endpoint = Endpoint("openai", base_url, "m", "key")

    async def ask(number: int) -> str:
        content = messages(number)[0]["content"]
        question = Question(endpoint, (Message("user", content),), sampling=Sampling(8))
        return (await connectors.ask(question)).completions[0].text

    async with connectors:
        yield ask


@asynccontextmanager
async def sockets(base_url: str, concurrency: int) -> AsyncIterator[Ask]:
    """The most that can be had: bytes made beforehand, connections that are open already."""
    url = httpx.URL(base_url)
    free = [await asyncio.open_connection(url.host, url.port) for _ in range(concurrency)]
    body = json.dumps({"model": "m", "messages": messages(0), "max_tokens": 8}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
    whole = head.encode() + body

    async def ask(number: int) -> str:
        reader, writer = free.pop()
        writer.write(whole)
        answer = await reader.readexactly(len(RESPONSE))
        free.append((reader, writer))
        return "Paris." if answer == RESPONSE else ""

    try:
        yield ask
    finally:
        for _, writer in free:
            writer.close()


@asynccontextmanager
async def bare_aiohttp(base_url: str, concurrency: int) -> AsyncIterator[Ask]:
    connector = aiohttp.TCPConnector(limit=concurrency)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as client:

        async def ask(number: int) -> str:
            body = {"model": "m", "messages": messages(number), "max_tokens": 8, "temperature": 0}
            async with client.post(f"{base_url}/chat/completions", json=body) as answer:
                text: str = (await answer.json())["choices"][0]["message"]["content"]
            return text

        yield ask


@asynccontextmanager
async def bare_httpx(base_url: str, concurrency: int) -> AsyncIterator[Ask]:
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(limits=limits, headers=headers, timeout=60) as client:

        async def ask(number: int) -> str:
            body = {"model": "m", "messages": messages(number), "max_tokens": 8, "temperature": 0}
            answer = await client.post(f"{base_url}/chat/completions", json=body)
            text: str = answer.json()["choices"][0]["message"]["content"]
            return text

        yield ask


@asynccontextmanager
async def official(base_url: str, concurrency: int) -> AsyncIterator[Ask]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY) as client:

        async def ask(number: int) -> str:
            answer = await client.chat.completions.create(
                model="m",
                messages=messages(number),  # type: ignore[arg-type]
                max_tokens=8,
                temperature=0,
            )
            return answer.choices[0].message.content or ""

        yield ask


FLOOR = "sockets"
WAYS = {
    "ours": ours,
    FLOOR: sockets,
    "bare aiohttp": bare_aiohttp,
    "bare httpx": bare_httpx,
    "openai client": official,
}


async def turn(ask: Ask, requests: int, concurrency: int, latency: float) -> Turn:
    """All requests, `concurrency` at a time."""
    numbers = iter(range(requests))
    waited = 0.0

    async def work() -> None:
        nonlocal waited
        for number in numbers:
            begun = time.perf_counter()
            if await ask(number) != "Paris.":
                raise ValueError("another answer than the server's")
            waited += time.perf_counter() - begun

    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(concurrency)))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    share = requests / seconds / (concurrency / latency)
    return Turn(share, 1e3 * cpu / requests, waited / requests)


async def measure(
    requests: int, concurrency: int, latency: float, turns: int, ways: Sequence[str]
) -> None:
    with provider(latency) as base_url:
        async with AsyncExitStack() as stack:
            asks = {
                name: await stack.enter_async_context(way(base_url, concurrency))
                for name, way in WAYS.items()
                if name in ways
            }
            found: dict[str, list[Turn]] = {name: [] for name in asks}
            for ask in asks.values():
                await turn(ask, 2 * concurrency, concurrency, latency)
            for _ in range(turns):
                for name, ask in asks.items():
                    found[name].append(await turn(ask, requests, concurrency, latency))
    print(f"{requests} requests, {concurrency} at once, {latency * 1e3:g} ms; best of {turns}")
    waves = math.ceil(requests / concurrency)
    print(f"{requests / concurrency / waves:6.1%} of the ideal is all that {waves} waves can reach")
    least = min(one.cpu_ms for one in found["ours"])
    floor = max(one.share for one in found[FLOOR])
    for name, several in found.items():
        share = max(one.share for one in several)
        cpu = min(one.cpu_ms for one in several)
        middle = statistics.median(one.share for one in several)
        print(
            f"{name:14} {share:6.1%} of the ideal throughput (median {middle:.1%}), "
            f"{share / floor:6.1%} of what sockets reach, "
            f"{1e3 * min(one.latency for one in several):.1f} ms each, "
            f"{cpu:.2f} ms of processor a request, {cpu / least:.2f} times ours"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    chosen = parser.parse_args()
    ways = {"ours", FLOOR, *chosen.ways}
    event_loop.run(
        measure(chosen.requests, chosen.concurrency, chosen.latency, chosen.turns, sorted(ways))
    )


if __name__ == "__main__":
    main()
