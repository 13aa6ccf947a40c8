"""One call to an API: what it can cost, and what it did cost."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache
from math import ceil
from typing import Self
from urllib.parse import urlsplit

from evomerge.app.db.repositories.calls import NOTHING, Booking, Cost
from evomerge.app.worker.readings import UNREAD_MARGIN, read
from evomerge.connectors.client import Call
from evomerge.connectors.errors import AskError
from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.question import Answer, Endpoint, Question


@dataclass(eq=False)
class PaidCall:
    """One call from its reservation to its settlement.

    Attributes:
        foreseen: what it can cost at most, when no request has to be repeated.
        booked: what it can cost at most, after what has become of its requests so far.
        sent: its requests; None before the first.
    """

    question: Question
    expert: ApiExpert
    id: int
    model: str
    foreseen: Cost
    booked: Cost
    sent: Call | None = None
    settled: bool = False

    @classmethod
    def of(cls, question: Question, expert: ApiExpert, margin: float = UNREAD_MARGIN) -> Self:
        foreseen = most(question, expert, margin)
        model = _name(question.endpoint)
        return cls(question, expert, secrets.randbits(62), model, foreseen, foreseen)

    @property
    def key(self) -> str:
        return self.question.key

    def booking(self, cost: Cost, *, settled: bool) -> Booking:
        return Booking(self.id, self.key, cost, settled)

    def most(self, sent: Call) -> Cost:
        """What it can cost at most, if no further request has to be repeated.

        Refused requests have cost a request and no tokens; lost ones may have been charged.
        """
        return self.foreseen + self._charged(sent.lost, sent.requests - sent.answered)

    def answered(self, answer: Answer) -> Cost:
        """What an answer cost, with the requests that were lost before it."""
        usd = self.expert.price.of(answer.input_tokens, answer.output_tokens)
        tokens = Cost(0, answer.input_tokens, answer.output_tokens, usd)
        return tokens + self._charged(answer.lost, answer.requests)

    def failed(self, error: AskError) -> Cost:
        """What a failure may have cost."""
        return self._charged(error.charged, error.requests)

    def left(self) -> Cost:
        """What it may have cost when nobody waits for its answer any more."""
        sent = self.sent
        return NOTHING if sent is None else self._charged(sent.charged, sent.requests)

    def _charged(self, charged: int, requests: int) -> Cost:
        """So many requests, some of them at the most that one can cost."""
        count, whole = self.foreseen.requests, self.foreseen
        tokens = ceil(whole.input_tokens / count), ceil(whole.output_tokens / count)
        return Cost(requests) + charged * Cost(0, *tokens, self.expert.price.of(*tokens))


def requests(question: Question, expert: ApiExpert) -> int:
    """HTTP requests that a question takes at most, when none has to be repeated."""
    known, prompts = expert.capabilities, max(1, len(question.prompts))
    if question.samples > 1 and not known.samples:
        return prompts * question.samples
    return 1 if known.batches else prompts


def most(question: Question, expert: ApiExpert, margin: float = UNREAD_MARGIN) -> Cost:
    """What a question can cost at most, when no request has to be repeated.

    Args:
        margin: what its estimated input tokens are multiplied with (see `Readings`).
    """
    input_tokens, output_tokens = ceil(margin * read(question, expert)), question.most_output_tokens
    if not expert.capabilities.zero_tokens:
        # Where nothing is to be written, one token has to be.
        texts = question.samples * max(1, len(question.prompts))
        output_tokens = max(output_tokens, texts)
    usd = expert.price.of(input_tokens, output_tokens)
    return Cost(requests(question, expert), input_tokens, output_tokens, usd)


@lru_cache(maxsize=1024)
def _name(endpoint: Endpoint) -> str:
    """Base URL and model; a password within the URL stays out."""
    url = urlsplit(endpoint.base_url)
    host = url.netloc.rpartition("@")[2]
    return f"{url.scheme}://{host}{url.path} {endpoint.model}"
