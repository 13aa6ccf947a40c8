"""The HTTP core: names under TLS, bounded bodies, shared connections, other routes than POST."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.support.connectors import CANARY, Waits, connectors, endpoint
from tests.support.dialects import OpenAI, refusal
from tests.support.provider import Send, provider

from evomerge.connectors.client import Call, as_it_is
from evomerge.connectors.errors import (
    HostRefusedError,
    ProviderDownError,
    UnknownModelError,
    UnusableAnswerError,
)
from evomerge.connectors.hosts import HostPolicy
from evomerge.connectors.limits import EndpointLimits
from evomerge.connectors.question import Endpoint, Message, Question, Sampling
from evomerge.connectors.registry import Connectors


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's certificate for models.invalid, from an authority that we trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("models.invalid").configure_cert(context)
    return context


async def loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


@pytest.mark.parametrize("name", ["models.invalid", "other.invalid"])
async def test_the_certificate_is_checked_against_the_name(tls: ssl.SSLContext, name: str) -> None:
    """Though the connection goes to an address."""
    seen: list[str | None] = []

    def note(_: ssl.SSLObject, server_name: str | None, __: ssl.SSLContext) -> None:
        seen.append(server_name)

    tls.sni_callback = note
    async with provider(OpenAI(), tls) as server:
        policy = HostPolicy.of(["*.invalid"], ["127.0.0.0/8"])
        limits = {"*": EndpointLimits(attempts=1)}
        async with Connectors(policy, limits=limits, resolve=loopback) as asked:
            where = Endpoint("openai", f"https://{name}:{server.port}/v1", "m")
            question = Question(where, (Message("user", "Where?"),))
            if name == "models.invalid":
                assert (await asked.ask(question)).requests == 1
                assert server.requests[0].headers["host"] == f"{name}:{server.port}"
            else:
                with pytest.raises(ProviderDownError, match="certificate") as caught:
                    await asked.ask(question)
                assert caught.value.charged == 0
                assert server.requests == []
    assert seen == [name]


async def test_connections_are_shared_by_all_models_of_an_origin() -> None:
    async with provider(OpenAI()) as server, connectors(concurrency=2) as asked:
        for model in ("a", "b", "c"):
            where = Endpoint("openai", server.base_url, model)
            await asked.ask(Question(where, (Message("user", "Where?"),)))
        assert (server.connections, len(server.requests)) == (1, 3)


async def test_other_methods_and_plain_answers() -> None:
    async with provider(lambda request: Send("Success: loaded.")) as server:
        async with connectors() as asked:
            call = Call(endpoint("vllm", server.base_url))
            text = await asked.caller.send(
                call, "POST", "/load", content=b"{}", read=lambda reply: reply.body.decode()
            )
            with pytest.raises(UnusableAnswerError, match="expected JSON"):
                await asked.caller.get(call, "/adapters", read=as_it_is)
        assert text == "Success: loaded."
        assert (server.requests[0].path, server.requests[1].method) == ("/v1/load", "GET")
        assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"
        assert call.requests == 1 + 3


async def test_errors_name_the_server_and_the_model() -> None:
    async with provider(lambda _: refusal(404, "gone")) as server, connectors() as asked:
        where = endpoint("openai", server.base_url)
        with pytest.raises(UnknownModelError) as caught:
            await asked.ask(Question(where, (Message("user", "Where?"),)))
    assert str(caught.value) == f"{server.base_url} m: 404: gone"


async def test_a_bad_base_url_is_refused_without_being_shown() -> None:
    async with connectors() as asked:
        where = Endpoint("openai", "https://me:sesame@127.0.0.1/v1", "m")
        with pytest.raises(HostRefusedError) as caught:
            await asked.ask(Question(where, (Message("user", "Where?"),)))
    assert "sesame" not in str(caught.value)


async def test_nobody_keeps_its_place_while_waiting_to_try_again() -> None:
    """One waits for its second attempt; another passes meanwhile, though one alone may be sent."""
    waiting, go_on = asyncio.Event(), asyncio.Event()

    class Held(Waits):
        async def sleep(self, seconds: float) -> None:
            waiting.set()
            await go_on.wait()

    async with provider(OpenAI()) as server, connectors(Held(), concurrency=1) as asked:
        where = endpoint("openai", server.base_url)
        question = Question(where, (Message("user", "Where?"),), sampling=Sampling(1))
        server.faults.append(refusal(429, "later"))
        first = asyncio.create_task(asked.ask(question))
        await waiting.wait()
        assert (await asked.ask(question)).requests == 1
        go_on.set()
        assert (await first).requests == 2


def test_an_unknown_provider_is_named() -> None:
    odd: Any = "parrot"
    with pytest.raises(ValueError, match="provider='parrot'"):
        connectors().of(odd)
