"""The HTTP client, over injected transports."""

from __future__ import annotations

import ast
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import evomerge
from evomerge.connectors import http
from evomerge.connectors.http import (
    BadAddressError,
    BadAnswerError,
    HttpClient,
    Part,
    StatusError,
    UnreachableError,
)

URL = "http://server:8000"


def client(answer: Callable[[httpx.Request], httpx.Response], **options: object) -> HttpClient:
    return HttpClient(URL, transport=httpx.MockTransport(answer), **options)  # type: ignore[arg-type]


async def test_json_goes_out_and_comes_back_with_the_key() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"got": json.loads(request.content)})

    async with client(answer, key="sesame") as server:
        assert await server.json("POST", "/v1/x", body={"a": 1}, params={"b": 2}) == {
            "got": {"a": 1}
        }
    assert seen[0].headers["authorization"] == "Bearer sesame"
    assert str(seen[0].url) == f"{URL}/v1/x?b=2"


async def test_an_empty_answer_is_none() -> None:
    async with client(lambda request: httpx.Response(204)) as server:
        assert await server.json("DELETE", "/v1/x") is None


async def test_a_refusal_keeps_what_the_envelope_says() -> None:
    envelope = {"message": "pool='x' is unknown", "type": "t", "param": "pool", "code": "missing"}
    async with client(lambda r: httpx.Response(404, json={"error": envelope})) as server:
        with pytest.raises(StatusError, match="pool='x' is unknown") as caught:
            await server.json("GET", "/")
    assert (caught.value.status, caught.value.param, caught.value.code) == (404, "pool", "missing")


@pytest.mark.parametrize(
    ("text", "said"),
    [("<html>gone</html>", "<html>gone</html>"), ("", "status 502"), ('{"error": "no"}', "no")],
)
async def test_a_refusal_without_an_envelope_is_shown_as_it_is(text: str, said: str) -> None:
    async with client(lambda request: httpx.Response(502, text=text)) as server:
        with pytest.raises(StatusError, match=said):
            await server.json("GET", "/")


async def test_an_answer_that_is_not_json_is_an_error() -> None:
    async with client(lambda request: httpx.Response(200, text="hello")) as server:
        with pytest.raises(BadAnswerError, match="hello"):
            await server.json("GET", "/")


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("lost")],
)
async def test_no_answer_is_unreachable_and_names_the_server_not_the_key(
    error: httpx.TransportError,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    async with client(answer, key="sesame") as server:
        with pytest.raises(UnreachableError, match="server:8000") as caught:
            await server.json("GET", "/")
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("url", ["server:8000", "ftp://server", "http://", "http://host:port", ""])
def test_an_address_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(BadAddressError):
        HttpClient(url)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(BadAddressError) as caught:
        HttpClient("http://user:sesame@server")
    assert "sesame" not in str(caught.value)


async def test_upload_sends_files_and_fields(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "hello"}')

    async def answer(request: httpx.Request) -> httpx.Response:
        body = (await request.aread()).decode()
        return httpx.Response(
            200, json={"file": 'filename="rows.jsonl"' in body, "field": 'name="name"' in body}
        )

    transport = httpx.MockTransport(answer)
    async with HttpClient(URL, transport=transport) as server:
        got = await server.upload("/v1/datasets", [Part("file", file)], fields={"name": "film"})
    assert got == {"file": True, "field": True}


async def test_download_leaves_nothing_when_the_server_breaks_off(tmp_path: Path) -> None:
    async def halves() -> AsyncIterator[bytes]:
        yield b"half"
        raise httpx.ReadError("lost")

    async with client(lambda request: httpx.Response(200, content=halves())) as server:
        with pytest.raises(UnreachableError):
            await server.download("/x", tmp_path / "adapter")
    assert left_in(tmp_path) == []


async def test_download_writes_the_whole_file(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4096
    async with client(lambda request: httpx.Response(200, content=content)) as server:
        assert await server.download("/x", tmp_path / "adapter") == len(content)
    assert (tmp_path / "adapter").read_bytes() == content


def stream(*chunks: bytes) -> Callable[[httpx.Request], httpx.Response]:
    async def parts() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    headers = {"content-type": "text/event-stream; charset=utf-8"}
    return lambda request: httpx.Response(200, headers=headers, content=parts())


async def read(*chunks: bytes) -> list[http.ServerSentEvent]:
    async with client(stream(*chunks)) as server:
        return [event async for event in server.events("/events")]


async def test_events_carry_name_id_and_joined_lines() -> None:
    got = await read(b': hello\n\nid: 7\nevent: metrics\ndata: {"a":\ndata: 1}\n\ndata:x\r\n\r\n')
    assert [(e.id, e.event) for e in got] == [("7", "metrics"), ("7", "message")]
    assert got[0].json() == {"a": 1}
    assert got[1].data == "x"


async def test_an_event_cut_off_at_the_end_is_not_given() -> None:
    assert await read(b"data: whole\n\ndata: half") == [http.ServerSentEvent("whole")]


@given(
    words=st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))),
    cut=st.integers(1, 7),
)
async def test_events_survive_any_cutting_of_the_stream(words: list[str], cut: int) -> None:
    whole = "".join(f"data: {json.dumps(word, ensure_ascii=False)}\n\n" for word in words).encode()
    chunks = [whole[start : start + cut] for start in range(0, len(whole), cut)]
    assert [event.json() for event in await read(*chunks)] == words


async def test_the_last_event_seen_is_sent() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["last-event-id"])
        return stream()(request)

    async with client(answer) as server:
        assert [event async for event in server.events("/events", last_id="41")] == []
    assert seen == ["41"]


async def test_events_from_what_is_no_event_stream_are_refused() -> None:
    async with client(lambda request: httpx.Response(200, json=[])) as server:
        with pytest.raises(BadAnswerError, match="event stream"):
            [event async for event in server.events("/events")]


def test_no_other_module_of_the_package_imports_httpx() -> None:
    package = Path(evomerge.__file__).parent
    importing = {
        str(file.relative_to(package)) for file in package.rglob("*.py") if "httpx" in imports(file)
    }
    assert importing == {"connectors/http.py"}


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def imports(file: Path) -> set[str]:
    """Top-level names of every package that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found
