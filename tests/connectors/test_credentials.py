"""Secrets: by name, for their hosts, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.connectors.credentials import HIDDEN, Credential, Credentials, scrubbed
from evomerge.connectors.errors import CredentialError
from evomerge.connectors.hosts import HostPolicy, Origin
from evomerge.connectors.question import Endpoint, Message, Question
from evomerge.connectors.registry import Connectors

ORIGIN = Origin.of("https://api.example.com/v1")


def test_out_of_the_environment_and_out_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    named = {
        "env": Credential(("api.example.com",), env="KEY"),
        "file": Credential(("*.example.com",), file=file),
    }
    known = Credentials(named, {"KEY": " from-env "})
    assert known.secret("env", ORIGIN, "m") == "from-env"
    assert known.secret("file", ORIGIN, "m") == "from-file"
    file.write_text("renewed")
    assert known.secret("file", ORIGIN, "m") == "renewed"
    assert set(known.secrets()) == {"from-env", "renewed"}
    assert "from-env" not in repr(known)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody", "is not configured"),
        ("other", "may not be sent to host 'api.example.com'"),
        ("unset", "is not set"),
        ("blank", "is not set"),
        ("missing", "cannot be read"),
        ("odd", "is not printable ASCII"),
        ("binary", "cannot be read"),
    ],
)
def test_what_cannot_be_given_is_named_with_its_host_only(
    tmp_path: Path, name: str, reason: str
) -> None:
    here = ("api.example.com",)
    (tmp_path / "binary").write_bytes(b"sesame\xff")
    named = {
        "other": Credential(("elsewhere.net",), env="KEY"),
        "unset": Credential(here, env="NOTHING"),
        "blank": Credential(here, env="BLANK"),
        "odd": Credential(here, env="ODD"),
        "missing": Credential(here, file=tmp_path / "nothing"),
        "binary": Credential(here, file=tmp_path / "binary"),
    }
    environment = {"KEY": "sesame", "BLANK": "  ", "ODD": "sesame\r\nX-Evil: 1"}
    with pytest.raises(CredentialError, match=reason) as caught:
        Credentials(named, environment).secret(name, ORIGIN, "m")
    assert repr(name) in str(caught.value)
    assert "api.example.com" in str(caught.value)
    assert "sesame" not in repr(caught.value.__context__) + str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    assert caught.value.requests == 0


@pytest.mark.parametrize("source", [{}, {"env": "A", "file": Path("a")}])
def test_a_credential_has_one_source(source: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="either env or file"):
        Credential(("a",), **source)  # type: ignore[arg-type]


def test_a_credential_without_hosts_is_none() -> None:
    with pytest.raises(ValueError, match="hosts"):
        Credential((), env="A")


def test_scrubbing_takes_every_spelling_longest_first() -> None:
    text = 'a"b/c and a\\"b/c and a%22b/c and a%22b%2Fc and a"b'
    assert scrubbed(text, ['a"b', 'a"b/c', ""]) == " and ".join([HIDDEN] * 5)


async def test_a_key_does_not_go_over_the_open_internet_in_clear() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["93.184.216.34"]

    credential = {"k": Credential(("api.example.com",), env="KEY")}
    policy = HostPolicy(("api.example.com",))
    endpoint = Endpoint("openai", "http://api.example.com/v1", "m", "k")
    async with Connectors(
        policy, credential, resolve=resolve, environment={"KEY": "sesame"}
    ) as asked:
        with pytest.raises(CredentialError, match="use https"):
            await asked.ask(Question(endpoint, (Message("user", "Where?"),)))
