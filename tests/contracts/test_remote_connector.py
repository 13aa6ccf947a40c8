"""What every connector to a provider that merges promises, against a server that faults on demand.

The same faults as tests/contracts/test_connector.py, where they apply: nothing that these send can
be left out, so that a refused parameter ends the matter by its name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.contracts.test_connector import ATTEMPTS, BROKEN, ENDED, RETRIED, chain
from tests.support.connectors import CANARY, Waits, connectors
from tests.support.mutations import mutations
from tests.support.provider import (
    Action,
    Answer,
    Drip,
    Hang,
    Provider,
    Request,
    Reset,
    Send,
    provider,
)
from tests.support.remote_wire import SUBJECTS, Faulty, Subject, Work

from evomerge.connectors.errors import (
    AskError,
    HostRefusedError,
    ProviderDownError,
    QuestionRefusedError,
    UnusableAnswerError,
)

SCORERS = [name for name, subject in SUBJECTS.items() if subject.floor is not None]


@dataclass(frozen=True)
class Ready:
    """A connector that has asked its server once, so that it knows it.

    Attributes:
        work: asks it.
        faulty: what the server does on the route that is asked.
        waits: between attempts.
    """

    subject: Subject
    server: Provider
    faulty: Faulty
    work: Work
    waits: Waits

    async def fails(self) -> AskError:
        with pytest.raises(AskError) as caught:
            await self.work()
        return caught.value


@pytest.fixture(params=SUBJECTS.values(), ids=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.param
    return found


@pytest.fixture
async def server(subject: Subject) -> AsyncIterator[Provider]:
    async with provider(subject.answer) as running:
        yield running


@asynccontextmanager
async def opened(
    subject: Subject, server: Provider, folder: Path, **limits: float
) -> AsyncIterator[Ready]:
    waits = Waits()
    async with connectors(waits, **limits) as asked:
        url = server.base_url.removesuffix("/v1")
        work = subject.work(asked.caller, url, folder)
        assert await work() == subject.value
        faulty = server.answer = Faulty(subject.answer, subject.route)
        yield Ready(subject, server, faulty, work, waits)


@pytest.fixture
async def ready(subject: Subject, server: Provider, tmp_path: Path) -> AsyncIterator[Ready]:
    async with opened(subject, server, tmp_path) as found:
        yield found


async def test_the_credential_goes_with_every_request(ready: Ready) -> None:
    await ready.work()
    for request in ready.server.requests:
        assert request.headers["authorization"] == f"Bearer {CANARY}"


@pytest.mark.parametrize("status", ENDED)
async def test_what_no_retry_mends_is_sent_once(ready: Ready, status: int) -> None:
    tries = ready.subject.tries.get(status, 1)
    ready.faulty.faults.extend([ready.subject.refusal(status, "no, thank you")] * tries)
    error = await ready.fails()
    assert type(error) is ENDED[status]
    assert "no, thank you" in str(error)
    assert len(ready.faulty.hits) == tries


async def test_a_refused_parameter_is_named(ready: Ready) -> None:
    said = "Unsupported parameter: 'logprobs' is not supported with this model."
    fault = ready.subject.refusal(400, said)
    ready.faulty.faults.append(fault)
    error = await ready.fails()
    assert type(error) is QuestionRefusedError
    assert "'logprobs' is not supported" in str(error)
    assert len(ready.faulty.hits) == 1


@pytest.mark.parametrize("status", RETRIED)
async def test_what_passes_is_asked_again(ready: Ready, status: int) -> None:
    ready.faulty.faults.extend([ready.subject.refusal(status, "later")] * (ATTEMPTS - 1))
    assert await ready.work() == ready.subject.value
    assert len(ready.faulty.hits) == ATTEMPTS


@pytest.mark.parametrize("status", RETRIED)
async def test_what_does_not_pass_is_given_up(ready: Ready, status: int) -> None:
    ready.faulty.faults.extend([ready.subject.refusal(status, "later")] * ATTEMPTS)
    assert type(await ready.fails()) is RETRIED[status]
    assert len(ready.faulty.hits) == ATTEMPTS


@pytest.mark.parametrize(("said", "seconds"), [("7", 7.0), ("9999", 60.0)])
async def test_retry_after_is_waited_for_up_to_a_limit(
    ready: Ready, said: str, seconds: float
) -> None:
    fault = ready.subject.refusal(429, "later")
    ready.faulty.faults.append(replace(fault, headers={"retry-after": said}))
    assert await ready.work() == ready.subject.value
    assert len(ready.waits.seconds) == 1
    assert seconds <= ready.waits.seconds[0] <= min(60.0, seconds + 1.0)


@pytest.mark.parametrize("name", [*BROKEN, "empty", "an error inside a 200"])
async def test_a_broken_answer_is_asked_for_again(ready: Ready, name: str) -> None:
    action, kind = {
        **BROKEN,
        "empty": (Send(ready.subject.empty), UnusableAnswerError),
        "an error inside a 200": (Send({"error": {"message": "failed"}}), UnusableAnswerError),
    }[name]
    ready.faulty.faults.append(action)
    assert await ready.work() == ready.subject.value
    assert len(ready.faulty.hits) == 2
    ready.faulty.faults.extend([action] * ATTEMPTS)
    assert type(await ready.fails()) is kind
    assert len(ready.faulty.hits) == 2 + ATTEMPTS


@pytest.mark.parametrize("fault", [Drip(), Hang()], ids=["drip", "silence"])
async def test_a_server_that_never_ends_is_left(
    subject: Subject, server: Provider, tmp_path: Path, fault: Action
) -> None:
    limits = {"attempts": 1, "deadline_seconds": 2.0, "read_seconds": 1.0}
    async with opened(subject, server, tmp_path, **limits) as ready:
        ready.faulty.faults.append(fault)
        assert type(await ready.fails()) is ProviderDownError
        await asyncio.wait_for(server.left.wait(), 10)


async def test_a_redirect_is_refused_and_the_other_host_hears_nothing(ready: Ready) -> None:
    async with provider(lambda request: Send({})) as other:
        for status in (301, 302, 307, 308):
            fault = Send(status=status, headers={"location": other.base_url})
            ready.faulty.faults.append(fault)
            error = await ready.fails()
            assert type(error) is HostRefusedError
            assert other.base_url in str(error)
        assert other.connections == 0


async def test_cancelling_stops_sending(ready: Ready) -> None:
    ready.faulty.faults.append(Hang())
    task = asyncio.ensure_future(ready.work())
    await asyncio.wait_for(ready.faulty.hit.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ready.server.left.wait(), 10)
    assert len(ready.faulty.hits) == 1


async def test_no_more_at_once_than_allowed(
    subject: Subject, server: Provider, tmp_path: Path
) -> None:
    async with opened(subject, server, tmp_path, concurrency=3) as ready:
        found = await asyncio.gather(*(ready.work() for _ in range(12)))
    assert found == [subject.value] * 12
    assert server.most_at_once <= 3
    assert server.connections <= 3


@pytest.mark.parametrize(
    "fault",
    [Send("<html>busy</html>"), Send("[7]"), Send("{}"), Reset(), Send({"detail": "busy"}, 503)],
    ids=["html", "list", "empty", "reset", "busy"],
)
async def test_a_fault_while_the_server_is_made_known_passes(
    subject: Subject, server: Provider, tmp_path: Path, fault: Action
) -> None:
    server.faults.append(fault)
    async with opened(subject, server, tmp_path) as ready:
        assert await ready.work() == subject.value


@pytest.mark.parametrize("name", SCORERS)
async def test_missing_numbers_break_a_candidate_and_the_floor_is_a_number(
    name: str, tmp_path: Path
) -> None:
    subject = SUBJECTS[name]
    async with (
        provider(subject.answer) as server,
        opened(subject, server, tmp_path) as ready,
    ):
        ready.faulty.faults.append(Send(subject.floor))
        loss = await ready.work()
        assert math.isfinite(loss)
        assert loss > 1000
        if subject.null is not None:
            ready.faulty.faults.append(Send(subject.null))
            assert math.isnan(await ready.work())


async def test_answers_of_any_other_shape_end_in_a_typed_error_or_in_a_value(
    subject: Subject, server: Provider, tmp_path: Path
) -> None:
    """Each request from the first on, and each place of its right answer."""
    url = server.base_url.removesuffix("/v1")
    async with connectors() as asked:
        await subject.work(asked.caller, url, tmp_path)()
        said = [subject.answer(request) for request in server.requests]
        for number, right in enumerate(said):
            assert isinstance(right, Send)
            for changed in mutations(right.body):
                server.answer = Wrong(subject.answer, number, Send(json.dumps(changed)))
                with suppress(AskError):
                    await subject.work(asked.caller, url, tmp_path)()


@dataclass
class Wrong:
    """A server whose answer to one request is wrong, however often it is asked for."""

    answer: Answer
    number: int
    wrong: Send
    seen: int = 0

    def __call__(self, request: Request) -> Action:
        self.seen += 1
        at_fault = self.number < self.seen <= self.number + ATTEMPTS
        return self.wrong if at_fault else self.answer(request)


async def test_no_secret_comes_out(ready: Ready, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    refusal, padding = ready.subject.refusal, "x" * 490
    shown: list[str] = []
    everything: list[Action] = [
        *(refusal(status, f"{padding} key {CANARY} is bad") for status in (400, 401, 404, 500)),
        refusal(401, f"Incorrect key {CANARY}"),
        Send(f"<html>{'x' * 90}{CANARY}</html>"),
        Send(CANARY, 503),
        Send(status=302, headers={"location": f"http://elsewhere/?key={CANARY}"}),
    ]
    for action in everything:
        # On every route, so that what clears up at the provider fails as well.
        ready.server.answer = lambda request, said=action: said
        shown += chain(await ready.fails())
    shown.append(caplog.text)
    for text in shown:
        assert CANARY not in text
        assert CANARY[:12] not in text
