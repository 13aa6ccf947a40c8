"""All connectors over one HTTP core: build it from the settings, close it at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

from evomerge.connectors.anthropic import AnthropicConnector
from evomerge.connectors.client import Caller, Hook
from evomerge.connectors.credentials import Credential, Credentials
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.hosts import HostPolicy, Hosts, Resolver, look_up
from evomerge.connectors.http import Transport
from evomerge.connectors.limits import EndpointLimits
from evomerge.connectors.openai import UNPROBED, OpenAIConnector
from evomerge.connectors.question import Answer, Endpoint, Provider, Question
from evomerge.connectors.retries import Retries


class Asker(Protocol):
    """Asks models, and knows how to use what a probe found."""

    async def ask(
        self,
        question: Question,
        capabilities: Capabilities = UNPROBED,
        on_attempt: Hook | None = None,
    ) -> Answer:
        """See `Connector.ask`.

        Args:
            capabilities: what may be relied on; unprobed, the least.
            on_attempt: awaited before each HTTP request; what it raises ends the question.
        """
        ...


class ProbedConnector(Asker, Protocol):
    """The connector of one provider, which a probe can learn from."""

    def refused(self, endpoint: Endpoint) -> set[str]:
        """Parameters that this model was seen to refuse, for the probe."""
        ...


FACTORIES: Mapping[Provider, Callable[[Caller], ProbedConnector]] = {
    "openai": OpenAIConnector,
    "anthropic": AnthropicConnector,
}


class Connectors:
    """Asks any model that the policy allows. Use as an async context manager."""

    def __init__(
        self,
        policy: HostPolicy,
        credentials: Mapping[str, Credential] | None = None,
        limits: Mapping[str, EndpointLimits] | None = None,
        *,
        retries: Retries | None = None,
        transport: Transport | None = None,
        resolve: Resolver = look_up,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """
        Args:
            policy: which hosts and networks may be called.
            credentials: by name.
            limits: by host pattern; the closest fits, and `EndpointLimits()` where none does.
            retries: how to wait between attempts.
            transport: what carries the requests; the network by default.
            resolve: how names become addresses.
            environment: where credentials are looked up.
        """
        self.caller = Caller(
            Hosts(policy, resolve),
            Credentials(credentials or {}, environment),
            limits or {},
            retries or Retries(),
            transport,
        )
        self._made: dict[Provider, ProbedConnector] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: Any) -> None:
        await self.caller.close()

    def of(self, provider: Provider) -> ProbedConnector:
        """The connector of a provider.

        Raises:
            ValueError: there is none.
        """
        if provider not in FACTORIES:
            raise ValueError(f"provider={provider!r} is none of {sorted(FACTORIES)}")
        if provider not in self._made:
            self._made[provider] = FACTORIES[provider](self.caller)
        return self._made[provider]

    async def ask(
        self,
        question: Question,
        capabilities: Capabilities = UNPROBED,
        on_attempt: Hook | None = None,
    ) -> Answer:
        """Ask whoever the question's endpoint names; see `ProbedConnector.ask`.

        Raises:
            AskError: there is no answer.
        """
        connector = self.of(question.endpoint.provider)
        return await connector.ask(question, capabilities, on_attempt)
