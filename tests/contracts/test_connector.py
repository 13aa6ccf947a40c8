"""What every connector promises, against a real server that faults on demand."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import pytest
from tests.support.connectors import CANARY, NOW, SUBJECTS, Subject, Waits, connectors
from tests.support.mutations import mutations
from tests.support.provider import (
    Action,
    CutOff,
    Drip,
    Hang,
    Provider,
    Reset,
    Send,
    provider,
)

from evomerge.connectors.client import Call
from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    HostRefusedError,
    OverloadedError,
    ProviderDownError,
    QuestionRefusedError,
    TooLongError,
    UnknownModelError,
    UnusableAnswerError,
)
from evomerge.connectors.question import Answer, Question

ATTEMPTS = 3
ENDED = {
    400: QuestionRefusedError,
    401: CredentialError,
    403: CredentialError,
    404: UnknownModelError,
    413: TooLongError,
    422: QuestionRefusedError,
}
RETRIED = {
    408: ProviderDownError,
    409: ProviderDownError,
    429: OverloadedError,
    500: ProviderDownError,
    501: ProviderDownError,
    502: ProviderDownError,
    503: ProviderDownError,
    504: ProviderDownError,
    529: OverloadedError,
}


@pytest.fixture(params=SUBJECTS.values(), ids=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    found: Subject = request.param
    return found


@pytest.fixture
async def server(subject: Subject) -> AsyncIterator[Provider]:
    async with provider(subject.answer) as running:
        yield running


@pytest.fixture
def question(subject: Subject, server: Provider) -> Question:
    return subject.question(server.base_url)


async def fails(question: Question, **limits: float) -> AskError:
    async with connectors(**limits) as asked:
        with pytest.raises(AskError) as caught:
            await asked.ask(question)
    return caught.value


async def test_an_answer_has_text_counts_and_survives_storage(question: Question) -> None:
    async with connectors() as asked:
        answer = await asked.ask(question)
    assert [one.text for one in answer.completions] != [""]
    assert answer.input_tokens > 0
    assert answer.output_tokens == 4
    assert answer.requests == 1
    assert Answer.from_json(json.loads(json.dumps(answer.to_json()))) == answer


async def test_the_credential_goes_where_the_provider_looks(
    subject: Subject, server: Provider, question: Question
) -> None:
    async with connectors() as asked:
        await asked.ask(question)
    name, value = subject.key_header
    assert server.requests[0].headers[name] == value
    assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"


async def test_several_samples_are_several_completions(question: Question) -> None:
    async with connectors() as asked:
        answer = await asked.ask(replace(question, samples=3))
    assert len(answer.completions) == 3


@pytest.mark.parametrize("status", ENDED)
async def test_what_no_retry_mends_is_sent_once(
    subject: Subject, server: Provider, question: Question, status: int
) -> None:
    server.faults.append(subject.refusal(status, "no, thank you"))
    error = await fails(question)
    assert type(error) is ENDED[status]
    assert "no, thank you" in str(error)
    assert (error.requests, len(server.requests)) == (1, 1)


@pytest.mark.parametrize("status", RETRIED)
async def test_what_passes_is_asked_again(
    subject: Subject, server: Provider, question: Question, status: int
) -> None:
    server.faults.extend([subject.refusal(status, "later")] * (ATTEMPTS - 1))
    async with connectors() as asked:
        answer = await asked.ask(question)
    assert (answer.requests, len(server.requests)) == (ATTEMPTS, ATTEMPTS)


@pytest.mark.parametrize("status", RETRIED)
async def test_what_does_not_pass_is_given_up(
    subject: Subject, server: Provider, question: Question, status: int
) -> None:
    server.faults.extend([subject.refusal(status, "later")] * ATTEMPTS)
    error = await fails(question)
    assert type(error) is RETRIED[status]
    assert (error.requests, len(server.requests)) == (ATTEMPTS, ATTEMPTS)


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), (formatdate(NOW + 11, usegmt=True), 11.0), ("9999", 60.0)]
)
async def test_retry_after_is_waited_for_up_to_a_limit(
    subject: Subject, server: Provider, question: Question, said: str, seconds: float
) -> None:
    fault = subject.refusal(429, "later")
    server.faults.append(replace(fault, headers={"retry-after": said}))
    waits = Waits()
    async with connectors(waits) as asked:
        await asked.ask(question)
    assert len(waits.seconds) == 1
    assert seconds <= waits.seconds[0] <= min(60.0, seconds + 1.0)


BROKEN: dict[str, tuple[Action, type[AskError]]] = {
    "invalid json": (Send('{"choices": [{'), UnusableAnswerError),
    "html": (Send("<html>Bad gateway</html>"), UnusableAnswerError),
    "not an object": (Send([1]), UnusableAnswerError),
    "cut off": (CutOff(Send({"choices": []})), ProviderDownError),
    "reset": (Reset(), ProviderDownError),
}


@pytest.mark.parametrize("name", [*BROKEN, "empty"])
async def test_a_broken_answer_is_asked_for_again(
    subject: Subject, server: Provider, question: Question, name: str
) -> None:
    action, kind = BROKEN.get(name, (subject.empty, UnusableAnswerError))
    server.faults.append(action)
    async with connectors() as asked:
        answer = await asked.ask(question)
        assert (answer.requests, answer.lost) == (2, 1)
    server.faults.extend([action] * ATTEMPTS)
    error = await fails(question)
    assert type(error) is kind
    assert error.requests == error.charged == ATTEMPTS


@pytest.mark.parametrize(
    ("status", "lost"),
    [(408, 1), (424, 1), (429, 0), (500, 1), (501, 0), (502, 1), (503, 0), (504, 1), (529, 0)],
)
async def test_only_requests_that_may_have_been_charged_count_as_lost(
    subject: Subject, server: Provider, question: Question, status: int, lost: int
) -> None:
    refusal = subject.refusal(status, "later")
    server.faults.append(refusal)
    async with connectors() as asked:
        answer = await asked.ask(question)
        assert (answer.requests, answer.lost) == (2, lost)
    # A fault of either kind before it: each counts for itself.
    server.faults.extend([Reset(), *[refusal] * (ATTEMPTS - 1)])
    error = await fails(question)
    assert (error.requests, error.charged) == (ATTEMPTS, 1 + lost * (ATTEMPTS - 1))


async def test_answers_of_any_other_shape_end_in_a_typed_error_or_in_an_answer(
    subject: Subject, server: Provider, question: Question
) -> None:
    """Each place of a right answer, with every other kind of JSON there."""
    if subject.provider == "openai":
        question = replace(question, alternatives=5)
    async with connectors() as asked:
        await asked.ask(question)
        right = subject.answer(server.requests[-1])
        assert isinstance(right, Send)
        for changed in mutations(right.body):
            server.faults.extend([Send(json.dumps(changed))] * ATTEMPTS)
            with suppress(AskError):
                await asked.ask(question)
            server.faults.clear()


async def test_an_error_inside_a_200_is_an_error(server: Provider, question: Question) -> None:
    server.faults.append(Send({"error": {"message": "Provider returned error", "code": 429}}))
    server.faults.append(Send({"error": {"message": "Provider returned error"}}))
    async with connectors() as asked:
        answer = await asked.ask(question)
        # The first says that it is busy, the second leaves open whether it worked.
        assert (answer.requests, answer.lost) == (3, 1)


async def test_a_slow_drip_ends_at_the_deadline(server: Provider, question: Question) -> None:
    server.faults.append(Drip())
    error = await fails(question, attempts=1, deadline_seconds=0.2)
    assert type(error) is ProviderDownError
    assert "within 0.2 s" in str(error)
    assert error.charged == 1
    await asyncio.wait_for(server.left.wait(), 10)


async def test_silence_ends(server: Provider, question: Question) -> None:
    server.faults.append(Hang())
    error = await fails(question, attempts=1, read_seconds=0.2)
    assert type(error) is ProviderDownError
    assert error.charged == 1


async def test_a_server_that_is_not_there_is_down(question: Question) -> None:
    async with provider(lambda request: Send()) as gone:
        address = gone.base_url
    error = await fails(replace(question, endpoint=replace(question.endpoint, base_url=address)))
    assert type(error) is ProviderDownError
    assert (error.requests, error.charged) == (ATTEMPTS, 0)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_refused_and_the_other_host_hears_nothing(
    server: Provider, question: Question, status: int
) -> None:
    async with provider(lambda request: Send({})) as other:
        server.faults.append(Send(status=status, headers={"location": other.base_url}))
        error = await fails(question)
        assert other.connections == 0
    assert type(error) is HostRefusedError
    assert other.base_url in str(error)
    assert error.requests == 1


async def test_an_answer_cut_short_and_a_filtered_one_say_so(
    subject: Subject, server: Provider, question: Question
) -> None:
    server.faults.extend([subject.cut_short, subject.filtered])
    async with connectors() as asked:
        first, second = await asked.ask(question), await asked.ask(question)
    assert first.completions[0].finish == "length"
    assert second.completions[0].finish == "content_filter"


async def test_a_refused_parameter_is_left_out_and_remembered(
    subject: Subject, server: Provider, question: Question
) -> None:
    name, fault = subject.refused_parameter
    server.faults.append(fault)
    async with connectors() as asked:
        first, second = await asked.ask(question), await asked.ask(question)
        assert asked.of(subject.provider).refused(question.endpoint) == {name}
    assert (first.requests, second.requests) == (2, 1)
    assert [name in request.body for request in server.requests] == [True, False, False]


async def test_cancelling_stops_sending(server: Provider, question: Question) -> None:
    server.faults.append(Hang())
    async with connectors() as asked:
        task = asyncio.create_task(asked.ask(question))
        await asyncio.wait_for(server.arrived.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.left.wait(), 10)
    assert len(server.requests) == 1


async def test_a_hook_hears_of_each_attempt_and_may_end_it(
    subject: Subject, server: Provider, question: Question
) -> None:
    class SpentError(Exception):
        pass

    heard = 0

    async def budget(sent: Call) -> None:
        nonlocal heard
        assert (sent.requests, sent.lost) == (heard, 0)
        heard += 1
        if heard > 2:
            raise SpentError

    server.faults.extend([subject.refusal(503, "later")] * ATTEMPTS)
    async with connectors() as asked:
        with pytest.raises(SpentError):
            await asked.ask(question, on_attempt=budget)
    assert len(server.requests) == 2


async def test_no_more_at_once_than_allowed(server: Provider, question: Question) -> None:
    async with connectors(concurrency=3) as asked:
        await asyncio.gather(*(asked.ask(question) for _ in range(20)))
    assert len(server.requests) == 20
    assert server.most_at_once <= 3
    assert server.connections <= 3


async def test_no_secret_comes_out(
    subject: Subject,
    server: Provider,
    question: Question,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    padding = "x" * 490
    echoes: list[Action] = [
        *(subject.refusal(status, f"{padding} key {CANARY} is bad") for status in (400, 401, 404)),
        subject.refusal(401, f"Incorrect key {CANARY}"),
        *[Send(f"<html>{'x' * 90}{CANARY}</html>")] * ATTEMPTS,
        *[Send(f"{CANARY}", 503)] * ATTEMPTS,
        Send(status=302, headers={"location": f"http://elsewhere/?key={CANARY}"}),
    ]
    server.faults.extend(echoes)
    shown = [repr(question), json.dumps(question.key)]
    async with connectors() as asked:
        shown.append(repr(asked.caller))
        while server.faults:
            with pytest.raises(AskError) as caught:
                await asked.ask(question)
            shown += chain(caught.value)
        server.faults.append(_parrot(subject))
        answer = await asked.ask(question)
    shown += [repr(answer), json.dumps(answer.to_json()), caplog.text]
    assert "[credential]" in answer.completions[0].text
    for text in shown:
        assert CANARY not in text
        assert CANARY[:12] not in text


def _parrot(subject: Subject) -> Send:
    """An answer that says the key."""
    text = json.dumps(subject.cut_short.body).replace("half an ans", CANARY)
    return Send(json.loads(text))


def chain(error: BaseException | None) -> list[str]:
    """Everything that an exception and those behind it show."""
    shown = []
    while error is not None:
        values: Any = vars(error)
        shown += [str(error), repr(error), repr(error.args), repr(values)]
        error = error.__cause__ or error.__context__
    return shown
