"""Allowed names, refused networks, one look-up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.connectors import Waits
from tests.support.dialects import OpenAI
from tests.support.provider import provider

from evomerge.connectors.errors import HostRefusedError
from evomerge.connectors.hosts import HostPolicy, Hosts, Origin, best_match, look_up, matches
from evomerge.connectors.question import Endpoint, Message, Question
from evomerge.connectors.registry import Connectors

PUBLIC = "93.184.216.34"


class Names:
    """A resolver that gives the next answer each time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("pattern", "url", "fits"),
    [
        ("api.openai.com", "https://api.openai.com/v1", True),
        ("API.OpenAI.com", "https://api.OPENAI.com./v1", True),
        ("api.openai.com", "https://api.openai.com.evil.net/v1", False),
        ("api.openai.com", "https://evilapi.openai.com", False),
        ("*.example.com", "https://a.b.example.com", True),
        ("*.example.com", "https://example.com", False),
        ("*.example.com", "https://badexample.com", False),
        ("127.0.0.1:8080", "http://127.0.0.1:8080/v1", True),
        ("127.0.0.1:8080", "http://127.0.0.1:8081/v1", False),
        ("example.com:443", "https://example.com", True),
        ("[::1]:8080", "http://[::1]:8080/v1", True),
        ("*", "https://anything.net", True),
    ],
)
def test_patterns(pattern: str, url: str, fits: bool) -> None:
    assert matches(pattern, Origin.of(url)) is fits


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com",
        "example.com/v1",
        "https:///v1",
        "https://example.com/v1?key=1",
        "https://example.com/#x",
        "https://exämple.com",
        "https://example.com:99999",
        "https://example.com\\@evil.net",
        "https://example.com/a b",
        "https://example.com/%2e%2e",
        "http://[::1",
    ],
)
def test_what_is_no_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Origin.of(url)


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="credential") as caught:
        Origin.of("https://me:sesame@example.com/v1")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "not an address",
    ],
)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert HostPolicy(("*",)).address_refusal(address) is not None


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1::1", f"::ffff:{PUBLIC}"])
def test_what_is_public_is_allowed(address: str) -> None:
    assert HostPolicy(("*",)).address_refusal(address) is None


def test_an_allowed_network_opens_itself_alone() -> None:
    policy = HostPolicy.of(["*"], ["10.0.0.0/8", "::1/128"])
    assert policy.address_refusal("10.9.9.9") is None
    assert policy.address_refusal("::ffff:10.9.9.9") is None
    assert policy.address_refusal("::1") is None
    assert policy.address_refusal("192.168.0.1") is not None


def test_the_metadata_address_needs_a_network_of_its_own() -> None:
    everything = HostPolicy.of(["*"], ["0.0.0.0/0", "::/0"])
    assert everything.address_refusal("127.0.0.1") is None
    assert everything.address_refusal("169.254.169.254") is not None
    assert everything.address_refusal("fe80::1") is not None
    explicit = HostPolicy.of(["*"], ["169.254.169.254/32"])
    assert explicit.address_refusal("169.254.169.254") is None
    assert explicit.address_refusal("169.254.169.253") is not None


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_no_address_passes_that_python_calls_private(address: IPv4Address | IPv6Address) -> None:
    if address.is_private or address.is_multicast or address.is_link_local:
        assert HostPolicy(("*",)).address_refusal(str(address)) is not None


async def test_a_name_off_the_list_is_not_even_looked_up() -> None:
    names = Names([PUBLIC])
    hosts = Hosts(HostPolicy(("api.example.com",)), names)
    with pytest.raises(HostRefusedError, match=r"'other\.net' is not among") as caught:
        await hosts.addresses(Origin.of("https://other.net"), "m")
    assert caught.value.requests == 0
    assert names.asked == []


async def test_one_bad_address_among_good_ones_refuses_the_name() -> None:
    hosts = Hosts(HostPolicy(("*",)), Names([PUBLIC, "10.0.0.1"]))
    with pytest.raises(HostRefusedError, match=r"10\.0\.0\.1"):
        await hosts.addresses(Origin.of("https://a.net"), "m")


async def test_a_name_without_address_is_refused() -> None:
    async def nowhere(host: str, port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for resolve in (nowhere, Names([])):
        with pytest.raises(HostRefusedError, match="no address"):
            await Hosts(HostPolicy(("*",)), resolve).addresses(Origin.of("https://a.net"), "m")


async def test_a_look_up_that_fails_for_now_is_tried_again() -> None:
    failing = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")]

    async def resolve(host: str, port: int) -> Sequence[str]:
        if failing:
            raise failing.pop()
        return ["127.0.0.1"]

    async with provider(OpenAI()) as server:
        policy = HostPolicy.of(["models.invalid"], ["127.0.0.0/8"])
        waits = Waits()
        async with Connectors(policy, resolve=resolve, retries=waits.retries()) as asked:
            endpoint = Endpoint("openai", f"http://models.invalid:{server.port}/v1", "m")
            answer = await asked.ask(Question(endpoint, (Message("user", "Where?"),)))
    assert (answer.requests, len(waits.seconds)) == (1, 1)


async def test_many_at_once_look_up_once() -> None:
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        await asyncio.sleep(0)
        return [PUBLIC]

    hosts = Hosts(HostPolicy(("a.net",)), resolve)
    found = await asyncio.gather(
        *(hosts.addresses(Origin.of("https://a.net"), "m") for _ in range(20))
    )
    assert found == [(PUBLIC,)] * 20
    assert asked == ["a.net"]


async def test_a_rebinding_name_is_looked_up_once_and_refused_when_it_turns() -> None:
    now = 0.0
    names = Names([PUBLIC], ["127.0.0.1"])
    hosts = Hosts(HostPolicy(("a.net",)), names, now=lambda: now)
    origin = Origin.of("https://a.net")
    assert await hosts.addresses(origin, "m") == (PUBLIC,)
    assert await hosts.addresses(origin, "m") == (PUBLIC,)
    assert names.asked == [("a.net", 443)]
    now = 61.0
    with pytest.raises(HostRefusedError, match=r"127\.0\.0\.1"):
        await hosts.addresses(origin, "m")


async def test_the_system_knows_localhost() -> None:
    assert set(await look_up("localhost", 80)) <= {"127.0.0.1", "::1"}


async def test_the_connection_goes_to_the_checked_address_under_the_name() -> None:
    """The name exists nowhere but in the resolver: a second look-up would fail."""
    async with provider(OpenAI()) as server:
        url = f"http://models.invalid:{server.port}/v1"
        policy = HostPolicy.of(["models.invalid"], ["127.0.0.0/8"])
        names = Names(["127.0.0.1"])
        async with Connectors(policy, resolve=names) as asked:
            question = Question(Endpoint("openai", url, "m"), (Message("user", "Where?"),))
            await asked.ask(question)
            await asked.ask(question)
        assert [one.headers["host"] for one in server.requests] == [
            f"models.invalid:{server.port}"
        ] * 2
        assert server.connections == 1
    assert len(names.asked) == 1


async def test_the_next_address_is_taken_where_the_first_has_nobody() -> None:
    async with provider(OpenAI()) as server:
        url = f"http://models.invalid:{server.port}/v1"
        policy = HostPolicy.of(["models.invalid"], ["127.0.0.0/8"])
        async with Connectors(policy, resolve=Names(["127.0.0.2", "127.0.0.1"])) as asked:
            question = Question(Endpoint("openai", url, "m"), (Message("user", "Where?"),))
            assert (await asked.ask(question)).requests == 1


async def test_the_proxies_of_the_environment_are_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with provider(OpenAI()) as proxy, provider(OpenAI()) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        policy = HostPolicy.of(["127.0.0.1"], ["127.0.0.0/8"])
        async with Connectors(policy) as asked:
            endpoint = Endpoint("openai", server.base_url, "m")
            await asked.ask(Question(endpoint, (Message("user", "Where?"),)))
        assert (proxy.connections, server.connections) == (0, 1)


def test_the_closest_pattern_wins() -> None:
    limits = {"*": 1, "*.example.com": 2, "api.example.com": 3}
    found = [best_match(limits, Origin.of(f"https://{host}")) for host in ("x", "b.example.com")]
    assert found == [1, 2]
    assert best_match(limits, Origin.of("https://api.example.com")) == 3
    assert best_match({}, Origin.of("https://x")) is None
