"""One server of a provider that merges: requests to it, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from evomerge.connectors.base import Evaluator
from evomerge.connectors.client import Call, Caller
from evomerge.connectors.question import Endpoint
from evomerge.connectors.wire import Reply
from evomerge.evaluation.example import Example

T = TypeVar("T")
_VERSION = "/v1"


@dataclass
class Tally:
    """What a piece of scoring has used so far."""

    requests: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Most:
    """What a piece of scoring can use at most, when no request has to be repeated."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Most) -> Most:
        return Most(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
        )

    def __rmul__(self, times: int) -> Most:
        return Most(times * self.requests, times * self.input_tokens, times * self.output_tokens)


class RemoteScorer(Evaluator, Protocol):
    """An evaluator whose cost is known before it is spent."""

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse, before anything is spent, examples that cannot be scored.

        Raises:
            ConnectorError, EvaluationError: they cannot.
        """
        ...

    def most(self, candidates: int, examples: Sequence[Example]) -> Most:
        """What scoring so many candidates can use."""
        ...


@dataclass(frozen=True)
class Server:
    """Asks one server.

    Attributes:
        endpoint: its base URL is the server's root, with no version behind it.
    """

    caller: Caller
    endpoint: Endpoint

    @property
    def who(self) -> str:
        """As errors name it."""
        return f"{self.endpoint.base_url} {self.endpoint.model}".rstrip()

    async def get(self, path: str, read: Callable[[Any], T], tally: Tally) -> T:
        """GET `path`; what `read` makes of the answer's JSON.

        Raises:
            AskError: there is no answer.
        """
        with self._call(tally) as call:
            return await self.caller.get(call, path, read=read)

    async def post(
        self,
        path: str,
        body: Mapping[str, Any],
        read: Callable[[Any], T],
        tally: Tally,
        tokens: int = 0,
    ) -> T:
        """POST JSON; what `read` makes of the answer's JSON.

        Args:
            tokens: that the server has to read; added to the tally for each request that is lost,
                since it may have read them all the same.

        Raises:
            AskError: there is no answer.
        """
        with self._call(tally, tokens) as call:
            return await self.caller.post(call, path, body, read=read, tokens=tokens)

    async def tell(self, path: str, content: bytes, tally: Tally) -> None:
        """POST JSON to a route whose success is a word, not JSON.

        Raises:
            AskError: it was refused.
        """

        def heard(reply: Reply) -> None:
            return None

        headers = {"Content-Type": "application/json"}
        with self._call(tally) as call:
            await self.caller.send(call, "POST", path, content=content, read=heard, headers=headers)

    @contextmanager
    def _call(self, tally: Tally, tokens: int = 0) -> Iterator[Call]:
        call = Call(self.endpoint)
        try:
            yield call
        finally:
            tally.requests += call.requests
            tally.tokens += tokens * call.lost


def root(base_url: str) -> str:
    """A server's root: what people give with the version, or a slash, means the same server."""
    return base_url.rstrip("/").removesuffix(_VERSION)
