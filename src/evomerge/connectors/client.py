"""The one way to a provider: checked address, credential, limits, retries, and typed errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from evomerge.connectors import faults
from evomerge.connectors.credentials import Credentials, scrubbed
from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    HostRefusedError,
    ProviderDownError,
    QuestionRefusedError,
    UnusableAnswerError,
)
from evomerge.connectors.habits import Habits
from evomerge.connectors.hosts import Hosts, Origin, best_match
from evomerge.connectors.http import (
    BadAnswerError,
    NotConnectedError,
    Transport,
    UnreachableError,
    open_wire,
)
from evomerge.connectors.limits import EndpointLimits, Gate
from evomerge.connectors.question import Endpoint
from evomerge.connectors.retries import AgainError, Retries
from evomerge.connectors.wire import Reply, Target, Wire

T = TypeVar("T")
Scheme = Callable[[str], Mapping[str, str]]
Read = Callable[[Any], T]


def bearer(secret: str) -> Mapping[str, str]:
    """The header of most providers."""
    return {"Authorization": f"Bearer {secret}"}


def x_api_key(secret: str) -> Mapping[str, str]:
    """Anthropic's header."""
    return {"x-api-key": secret}


def as_it_is(answer: Any) -> Any:
    """The parsed JSON, unread."""
    return answer


@dataclass
class Call:
    """All requests that one question takes: who is asked, and what became of them so far.

    Attributes:
        endpoint: who is asked.
        on_attempt: awaited before each request is sent; what it raises ends the call.
        requests: sent so far.
        answered: of them, those whose answer was read.
        charged: of them, those that were answered, are under way, or have failed in a way that
            leaves open whether the provider worked. Refused ones are none of these.
    """

    endpoint: Endpoint
    on_attempt: Hook | None = None
    requests: int = 0
    answered: int = 0
    charged: int = 0

    @property
    def lost(self) -> int:
        """Requests that may have been charged, and have brought no answer."""
        return self.charged - self.answered

    @property
    def who(self) -> str:
        """As errors name it."""
        return f"{self.endpoint.base_url} {self.endpoint.model}"

    def error(self, kind: type[AskError], reason: str) -> AskError:
        """An error of this call; its reason must hold no secret."""
        return kind(self.who, reason, requests=self.requests, charged=self.charged)


Hook = Callable[[Call], Awaitable[None]]


@dataclass
class Way:
    """What the requests to one origin share."""

    origin: Origin
    limits: EndpointLimits
    gate: Gate
    wire: Wire


@dataclass(frozen=True)
class Outgoing:
    """One request, to be sent as often as it takes."""

    method: str
    path: str
    content: bytes | None
    tokens: int
    scheme: Scheme
    headers: Mapping[str, str]


@dataclass
class Caller:
    """Sends requests to any allowed host. Close it at the end.

    Attributes:
        hosts: which hosts may be called, and their addresses.
        credentials: by name.
        limits: by host pattern; the closest fits.
        retries: how to wait between attempts.
        transport: what carries the requests; the network by default.
        habits: which parameters each model was seen to refuse.
    """

    hosts: Hosts
    credentials: Credentials = field(default_factory=Credentials)
    limits: Mapping[str, EndpointLimits] = field(default_factory=dict)
    retries: Retries = field(default_factory=Retries)
    transport: Transport | None = None
    habits: Habits = field(default_factory=Habits)
    _ways: dict[str, Way] = field(default_factory=dict)

    async def close(self) -> None:
        """End every connection."""
        ways, self._ways = list(self._ways.values()), {}
        for way in ways:
            await way.wire.close()

    async def post(
        self,
        call: Call,
        path: str,
        body: Mapping[str, Any],
        *,
        read: Read[T],
        tokens: int = 0,
        scheme: Scheme = bearer,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """POST `body` as JSON to base URL + `path`; what `read` makes of the answer's JSON.

        Args:
            call: counts the requests.
            read: may raise BadAnswerError: the answer is then asked for again.
            tokens: estimated, in and out, for the rate limit.
            scheme: how the credential is put into a header.

        Raises:
            AskError: see connectors/errors.py.
        """
        content = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
        headers = {"Content-Type": "application/json", **(headers or {})}
        return await self.send(
            call,
            "POST",
            path,
            content=content,
            read=lambda reply: read(_json(reply)),
            tokens=tokens,
            scheme=scheme,
            headers=headers,
        )

    async def get(self, call: Call, path: str, *, read: Read[T]) -> T:
        """GET base URL + `path`; what `read` makes of the answer's JSON.

        Raises:
            AskError: see connectors/errors.py.
        """
        return await self.send(call, "GET", path, read=lambda reply: read(_json(reply)))

    async def send(
        self,
        call: Call,
        method: str,
        path: str,
        *,
        read: Callable[[Reply], T],
        content: bytes | None = None,
        tokens: int = 0,
        scheme: Scheme = bearer,
        headers: Mapping[str, str] | None = None,
    ) -> T:
        """As `post`, for any method and any body; `read` is given the whole 2xx answer.

        Raises:
            AskError: see connectors/errors.py.
        """
        way, base = self._way(call)
        sent = Outgoing(method, f"{base}{path}", content, tokens, scheme, headers or {})

        async def attempt() -> T:
            return self._read(call, await self._attempt(call, way, sent), read)

        return await self.retries.run(way.limits.attempts, attempt)

    async def _attempt(self, call: Call, way: Way, sent: Outgoing) -> Reply:
        """One request, within the limits; its answer whatever the status, without our key."""
        try:
            addresses = await self.hosts.addresses(way.origin, call.who)
        except NotConnectedError as error:
            raise self._lost(call, str(error)) from None
        secret = self._secret(call, way.origin, addresses)
        credential = sent.scheme(secret) if secret is not None else {}
        headers = {**sent.headers, **credential}
        async with way.gate.passed(sent.tokens):
            if call.on_attempt is not None:
                await call.on_attempt(call)
            call.requests += 1
            call.charged += 1  # until it is known to have cost nothing
            reply = await self._exchange(call, way, addresses, sent, headers)
        return self._clean(reply, secret)

    async def _exchange(
        self,
        call: Call,
        way: Way,
        addresses: tuple[str, ...],
        sent: Outgoing,
        headers: Mapping[str, str],
    ) -> Reply:
        seconds = way.limits.deadline_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._first(way, addresses, sent, headers)
        except TimeoutError:
            reason = f"no whole answer within {seconds:g} s"
            raise self._lost(call, reason) from None
        except NotConnectedError as error:
            call.charged -= 1
            raise self._lost(call, str(error)) from None
        except UnreachableError as error:
            raise self._lost(call, str(error)) from None
        except BadAnswerError as error:
            raise self._unusable(call, str(error)) from None

    async def _first(
        self, way: Way, addresses: tuple[str, ...], sent: Outgoing, headers: Mapping[str, str]
    ) -> Reply:
        """The answer of the first address that can be connected to."""
        for address in addresses[:-1]:
            try:
                return await self._at(way, address, sent, headers)
            except NotConnectedError:
                continue
        try:
            return await self._at(way, addresses[-1], sent, headers)
        except NotConnectedError:
            self.hosts.forget(way.origin)
            raise

    async def _at(
        self, way: Way, address: str, sent: Outgoing, headers: Mapping[str, str]
    ) -> Reply:
        origin = way.origin
        return await way.wire.send(
            sent.method,
            Target(origin.scheme, address, origin.port, sent.path, origin.host, origin.authority),
            headers=headers,
            content=sent.content,
            timeouts=way.limits.timeouts,
        )

    def _read(self, call: Call, reply: Reply, read: Callable[[Reply], T]) -> T:
        if not 200 <= reply.status < 300:
            raise self._refused(call, reply)
        try:
            found = read(reply)
        except ToldError as error:
            raise self._told(call, error.told, None) from None
        except BadAnswerError as error:
            raise self._unusable(call, str(error)) from None
        call.answered += 1
        return found

    def _way(self, call: Call) -> tuple[Way, str]:
        try:
            whole = Origin.of(call.endpoint.base_url)
        except ValueError as error:
            # The URL itself may hold a password: it is not named.
            raise HostRefusedError(call.endpoint.model, str(error), requests=0) from None
        way = self._ways.get(whole.name)
        if way is None:
            origin = Origin(whole.scheme, whole.host, whole.port)
            limits = best_match(self.limits, origin) or EndpointLimits()
            wire = open_wire(self.transport, connections=limits.concurrency)
            way = self._ways[whole.name] = Way(origin, limits, Gate(limits), wire)
        return way, whole.path

    def _secret(self, call: Call, origin: Origin, addresses: tuple[str, ...]) -> str | None:
        name = call.endpoint.credential
        if name is None:
            return None
        if origin.scheme == "http" and any(map(self.hosts.policy.is_public, addresses)):
            reason = f"credential {name!r} would go to {origin.authority!r} unencrypted; use https"
            raise call.error(CredentialError, reason)
        return self.credentials.secret(name, origin, call.who)

    def _refused(self, call: Call, reply: Reply) -> Exception:
        if 300 <= reply.status < 400:
            call.charged -= 1
            where = reply.headers.get("location", "nowhere")
            reason = f"redirects ({reply.status}) to {where!r}, which is not followed"
            return call.error(HostRefusedError, self._scrubbed(reason)[: faults.SHOWN])
        # Scrubbed before it is read: what is cut short there could end inside a secret.
        body = self._scrubbed(reply.body.decode("utf-8", "replace")).encode()
        after = self.retries.after(reply.headers)
        return self._told(call, faults.told(reply.status, body), after)

    def _told(self, call: Call, told: faults.Told, after: float | None) -> Exception:
        if not told.may_have_cost:
            call.charged -= 1
        error = call.error(told.kind, self._scrubbed(f"{told.status}: {told.message}"))
        if isinstance(error, QuestionRefusedError) and told.param is not None:
            error.param = self._scrubbed(told.param)
        again = told.transient or isinstance(error, UnusableAnswerError)
        return AgainError(error, after) if again else error

    def _unusable(self, call: Call, reason: str) -> AgainError:
        return AgainError(call.error(UnusableAnswerError, self._scrubbed(reason)))

    def _lost(self, call: Call, reason: str) -> AgainError:
        return AgainError(call.error(ProviderDownError, self._scrubbed(reason)))

    def _clean(self, reply: Reply, secret: str | None) -> Reply:
        """Without the key that was sent, should the server send it back."""
        if secret is None or secret.encode() not in reply.body:
            return reply
        return replace(reply, body=self._scrubbed(reply.body.decode("utf-8", "replace")).encode())

    def _scrubbed(self, text: str) -> str:
        """Without any secret: servers echo keys, and not always the one that they were sent."""
        return scrubbed(text, self.credentials.secrets())


class ToldError(Exception):
    """An error object where an answer was promised."""

    def __init__(self, told: faults.Told) -> None:
        super().__init__(told.message)
        self.told = told


def _json(reply: Reply) -> Any:
    try:
        answer = json.loads(reply.body)
    except (ValueError, RecursionError) as error:
        start = reply.body[:100].decode("utf-8", "replace")
        raise BadAnswerError(f"expected JSON, got {start!r}") from error
    told = faults.inside(answer)
    if told is not None:
        raise ToldError(told)
    return answer
