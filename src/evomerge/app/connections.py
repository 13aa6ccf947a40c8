"""The way to experts' APIs, out of the settings: allowed hosts, credentials by name, limits."""

from __future__ import annotations

from ipaddress import ip_network

from evomerge.app.settings import EndpointLimitsSetting, Settings
from evomerge.connectors.credentials import Credential
from evomerge.connectors.hosts import HostPolicy
from evomerge.connectors.http import Transport
from evomerge.connectors.limits import EndpointLimits
from evomerge.connectors.registry import Connectors


def connectors(settings: Settings, transport: Transport | None = None) -> Connectors:
    """What asks experts, as the settings allow. Use as an async context manager.

    Args:
        transport: what carries the requests; the network by default.
    """
    networks = tuple(ip_network(str(one)) for one in settings.allowed_networks)
    return Connectors(
        HostPolicy(tuple(settings.allowed_hosts), networks),
        {
            name: Credential(tuple(one.hosts), one.env, one.file)
            for name, one in settings.credentials.items()
        },
        {host: _limits(one) for host, one in settings.endpoint_limits.items()},
        transport=transport,
    )


def _limits(setting: EndpointLimitsSetting) -> EndpointLimits:
    return EndpointLimits(
        concurrency=setting.concurrency,
        requests_per_minute=setting.requests_per_minute,
        tokens_per_minute=setting.tokens_per_minute,
        attempts=setting.attempts,
        read_seconds=setting.read_seconds,
        deadline_seconds=setting.deadline_seconds,
    )
