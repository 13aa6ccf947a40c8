"""Which servers may be called: names by allow-list, addresses by network, each looked up once."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TypeVar
from urllib.parse import urlsplit

from evomerge.connectors.errors import HostRefusedError
from evomerge.connectors.http_errors import NotConnectedError

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
T = TypeVar("T")
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

PORTS = {"http": 80, "https": 443}
LINK_LOCAL: tuple[Network, ...] = (IPv4Network("169.254.0.0/16"), IPv6Network("fe80::/10"))
# Failures of a look-up that another one will not mend.
LASTING = frozenset({socket.EAI_NONAME, socket.EAI_FAIL, socket.EAI_FAMILY})
NAT64 = IPv6Network("64:ff9b::/96")


async def look_up(host: str, port: int) -> Sequence[str]:
    """The addresses of a name, as the system resolves it.

    Raises:
        OSError: it has none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of a base URL; connections and limits are shared by it."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def authority(self) -> str:
        """As the Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """Without the path."""
        return f"{self.scheme}://{self.authority}"

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, base_url: str) -> Origin:
        """The parts of a base URL.

        Raises:
            ValueError: it is not one that can be called; says why, and shows no password.
        """
        try:
            url = urlsplit(base_url)
            port = url.port
        except ValueError as error:
            raise ValueError(f"base_url is not a URL: {error}") from error
        if url.username is not None or url.password is not None:
            raise ValueError("base_url must carry no user or password; name a credential instead")
        if url.scheme not in PORTS or not url.hostname:
            raise ValueError(f"base_url={base_url!r} must look like https://host/v1")
        if url.query or url.fragment:
            raise ValueError(f"base_url={base_url!r} must have no query and no fragment")
        if not base_url.isascii() or not base_url.isprintable() or set(base_url) & set(' \\%"<>'):
            raise ValueError(f"base_url={base_url!r} must be plain ASCII; hosts in punycode")
        host = url.hostname.rstrip(".")
        return cls(url.scheme, host, port or PORTS[url.scheme], url.path.rstrip("/"))


@dataclass(frozen=True)
class HostPolicy:
    """What may be called.

    Attributes:
        hosts: patterns: a name, `*.` before a name for everything below it, or `*`; each with
            `:port` behind it for that port alone. IPv6 literals in brackets.
        networks: networks that are allowed though they are not public, such as 127.0.0.0/8.
            Link-local addresses, where clouds keep their secrets, only by a network inside theirs.
    """

    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, hosts: Sequence[str], networks: Sequence[str] = ()) -> HostPolicy:
        """From text.

        Raises:
            ValueError: a network is none.
        """
        return cls(tuple(hosts), tuple(ip_network(one) for one in networks))

    def refusal(self, origin: Origin) -> str | None:
        """Why this host may not be called, by its name alone; None if it may."""
        if any(matches(pattern, origin) for pattern in self.hosts):
            return None
        return f"host {origin.authority!r} is not among the allowed hosts"

    def address_refusal(self, address: str) -> str | None:
        """Why nobody may connect to this address; None if they may."""
        try:
            seen = ip_address(address)
        except ValueError:
            return f"{address!r} is not an address"
        for one in _meanings(seen):
            if not (self.is_allowed(one) or _is_public(one)):
                return f"address {address} is not public and in no allowed network"
        return None

    def is_public(self, address: str) -> bool:
        """Whether the way to an address leaves the allowed networks."""
        return _is_outside(self, address)

    def is_allowed(self, address: Address) -> bool:
        """Whether it is in one of the allowed networks."""
        link_local = any(address in network for network in LINK_LOCAL)
        return any(
            address in network and (not link_local or _inside_link_local(network))
            for network in self.networks
        )


@lru_cache(maxsize=1024)
def _is_outside(policy: HostPolicy, address: str) -> bool:
    return not all(map(policy.is_allowed, _meanings(ip_address(address))))


@dataclass
class Hosts:
    """Addresses of allowed hosts: looked up, checked all, and kept for a while.

    The connection goes to an address that was checked, never to the name again: a name that changes
    its mind in between (DNS rebinding) gains nothing.

    Attributes:
        keep: seconds for which checked addresses are used.
    """

    policy: HostPolicy
    resolve: Resolver = look_up
    now: Callable[[], float] = time.monotonic
    keep: float = 60.0
    _known: dict[Origin, tuple[float, tuple[str, ...]]] = field(default_factory=dict)
    _locks: dict[Origin, asyncio.Lock] = field(default_factory=dict)

    async def addresses(self, origin: Origin, who: str) -> tuple[str, ...]:
        """Checked addresses, best first; `who` is named in errors.

        Raises:
            HostRefusedError: the name or one of its addresses is refused, or it has none.
            NotConnectedError: it could not be looked up just now.
        """
        kept = self._kept(origin)
        if kept is not None:
            return kept
        # One look-up for all that wait for it.
        async with self._locks.setdefault(origin, asyncio.Lock()):
            kept = self._kept(origin)
            if kept is not None:
                return kept
            found = await self._looked_up(origin, who)
            self._known[origin] = (self.now() + self.keep, found)
            return found

    def _kept(self, origin: Origin) -> tuple[str, ...] | None:
        known = self._known.get(origin)
        return known[1] if known is not None and known[0] > self.now() else None

    async def _looked_up(self, origin: Origin, who: str) -> tuple[str, ...]:
        reason = self.policy.refusal(origin)
        if reason is not None:
            raise HostRefusedError(who, reason, requests=0)
        try:
            found = tuple(await self.resolve(origin.host, origin.port))
        except OSError as error:
            reason = f"host {origin.host!r} has no address: {error.strerror or error}"
            if error.errno in LASTING:
                raise HostRefusedError(who, reason, requests=0) from error
            raise NotConnectedError(reason) from error
        reasons = filter(None, map(self.policy.address_refusal, found))
        reason = next(reasons, None if found else "it has no address")
        if reason is not None:
            raise HostRefusedError(who, f"host {origin.host!r}: {reason}", requests=0)
        return found

    def forget(self, origin: Origin) -> None:
        """Look its addresses up again next time."""
        self._known.pop(origin, None)


def matches(pattern: str, origin: Origin) -> bool:
    """Whether a host pattern (see `HostPolicy`) covers an origin."""
    name, port = _split(pattern.strip().lower())
    if port is not None and port != origin.port:
        return False
    if name.startswith("*."):
        return origin.host.endswith(name[1:])
    return name in ("*", origin.host)


def best_match(patterns: Mapping[str, T], origin: Origin) -> T | None:
    """The value of the pattern that fits an origin most closely: the longest one."""
    fitting = [pattern for pattern in patterns if matches(pattern, origin)]
    return patterns[max(fitting, key=len)] if fitting else None


def _split(pattern: str) -> tuple[str, int | None]:
    if pattern.startswith("["):
        name, _, rest = pattern[1:].partition("]")
        port = rest.removeprefix(":")
    else:
        name, _, port = pattern.partition(":")
    return name.rstrip("."), int(port) if port.isdigit() else None


def _meanings(address: Address) -> list[Address]:
    """An address and every IPv4 address that it carries inside: each is checked."""
    found: list[Address] = [address]
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            # The mapped form is the IPv4 address, and nothing else.
            return [address.ipv4_mapped]
        inner = [address.sixtofour, *(address.teredo or ())]
        if address in NAT64:
            inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
        found += [one for one in inner if one is not None]
    return found


def _is_public(address: Address) -> bool:
    return address.is_global and not (
        address.is_multicast
        or address.is_reserved
        or address.is_loopback
        or address.is_link_local
        or address.is_unspecified
    )


def _inside_link_local(network: Network) -> bool:
    return any(
        network.version == whole.version and network.subnet_of(whole)  # type: ignore[arg-type]
        for whole in LINK_LOCAL
    )
