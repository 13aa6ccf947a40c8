"""One server of a provider that merges: requests to it, counted and paid for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from evomerge.connectors.client import Call, Caller, Hook
from evomerge.connectors.http import Reply
from evomerge.connectors.question import Endpoint

T = TypeVar("T")
_VERSION = "/v1"


@dataclass
class Tally:
    """What a piece of scoring has used so far."""

    requests: int = 0
    tokens: int = 0


class Purse(Protocol):
    """Pays for requests out of a budget."""

    def paying(self, tokens: int) -> AbstractAsyncContextManager[Hook | None]:
        """Reserve one request of `tokens` input tokens before it is sent, settle it afterwards.

        The block is given what is to be awaited before each attempt.

        Raises:
            Exception: of the budget's own, where it is reached.
        """
        ...


class FreePurse:
    """Pays whatever it is asked."""

    @asynccontextmanager
    async def paying(self, tokens: int) -> AsyncIterator[Hook | None]:
        yield None


@dataclass(frozen=True)
class Server:
    """Asks one server.

    Attributes:
        endpoint: its base URL is the server's root, with no version behind it.
        purse: what pays.
    """

    caller: Caller
    endpoint: Endpoint
    purse: Purse = field(default_factory=FreePurse)

    @property
    def who(self) -> str:
        """As errors name it."""
        return f"{self.endpoint.base_url} {self.endpoint.model}".rstrip()

    async def get(self, path: str, read: Callable[[Any], T], tally: Tally) -> T:
        """GET `path`; what `read` makes of the answer's JSON.

        Raises:
            AskError: there is no answer.
        """
        async with self._call(tally, 0) as call:
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
            tokens: that the server has to read.

        Raises:
            AskError: there is no answer.
        """
        async with self._call(tally, tokens) as call:
            return await self.caller.post(call, path, body, read=read, tokens=tokens)

    async def tell(self, path: str, content: bytes, tally: Tally, *, free: bool = False) -> None:
        """POST JSON to a route whose success is a word, not JSON.

        Args:
            free: whether it is sent though nothing is left to pay it: clearing up.

        Raises:
            AskError: it was refused.
        """

        def heard(reply: Reply) -> None:
            return None

        headers = {"Content-Type": "application/json"}
        paying = self._counted(tally, None) if free else self._call(tally, 0)
        async with paying as call:
            await self.caller.send(call, "POST", path, content=content, read=heard, headers=headers)

    @asynccontextmanager
    async def _call(self, tally: Tally, tokens: int) -> AsyncIterator[Call]:
        async with self.purse.paying(tokens) as hook, self._counted(tally, hook) as call:
            yield call

    @asynccontextmanager
    async def _counted(self, tally: Tally, hook: Hook | None) -> AsyncIterator[Call]:
        call = Call(self.endpoint, hook)
        try:
            yield call
        finally:
            tally.requests += call.requests


def root(base_url: str) -> str:
    """A server's root: what people give with the version, or a slash, means the same server."""
    return base_url.rstrip("/").removesuffix(_VERSION)
