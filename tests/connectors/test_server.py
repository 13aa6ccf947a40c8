"""What a server that merges is asked is counted, whatever becomes of each request."""

from __future__ import annotations

import pytest
from tests.support.connectors import connectors
from tests.support.provider import Reset, Send, provider

from evomerge.connectors.errors import OverloadedError
from evomerge.connectors.question import Endpoint
from evomerge.connectors.server import Server, Tally


async def test_tokens_of_lost_requests_are_counted_and_of_refused_ones_not() -> None:
    async with (
        provider(lambda request: Send({"fine": True})) as there,
        connectors(attempts=4) as asked,
    ):
        server = Server(asked.caller, Endpoint("vllm", there.base_url, "m"))
        there.faults.extend([Reset(), Send(status=503), Send(status=500)])
        tally = Tally()

        await server.post("/v1/completions", {}, lambda answer: answer, tally, tokens=7)

        # Whoever reads the answer adds what it took itself.
        assert (tally.requests, tally.tokens) == (4, 14)


async def test_requests_of_a_failure_are_counted() -> None:
    async with provider(lambda request: Send(status=429)) as there, connectors(attempts=2) as asked:
        tally = Tally()
        with pytest.raises(OverloadedError):
            await Server(asked.caller, Endpoint("vllm", there.base_url, "m")).post(
                "/v1/completions", {}, lambda answer: answer, tally, tokens=7
            )
        assert (tally.requests, tally.tokens) == (2, 0)
