"""The commands over forests: what they send, print and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.app.cli.conftest import Run
from tests.app.cli.server import Server, page, refusal

FOREST = {
    "id": "forest_1",
    "name": "manuals",
    "architecture": {"parameters": 3212288},
    "elms": [{"id": "elm_1", "name": "python", "domain": "python"}],
}
ELM = {"id": "elm_1", "name": "python", "domain": "code", "tokens": 25, "own_tokens": 5}


def test_forests_are_listed_shown_and_deleted(run: Run) -> None:
    one = "/v1/forests/manuals"
    server = Server(
        {
            "GET /v1/forests": page(FOREST),
            f"GET {one}": httpx.Response(200, json=FOREST),
            f"DELETE {one}": httpx.Response(200, json={"id": "forest_1"}),
        }
    )
    listed = run(server, "forests", "list").stdout
    assert "manuals" in listed
    assert "3212288" in listed
    assert "forest_1" in run(server, "forests", "show", "manuals").stdout
    assert run(server, "forests", "delete", "manuals").exit_code == 0


@pytest.mark.parametrize(
    ("options", "body"),
    [
        (["--seed", "/f/seed"], {"seed": {"path": "/f/seed"}}),
        (["--base", "tiny"], {"seed": {"base": "tiny"}}),
        (["--job", "fj_1"], {"seed": {"job": "fj_1"}}),
        (
            ["--base", "tiny", "--elm", "/f/a", "--elm", "/f/b"],
            {"seed": {"base": "tiny"}, "elms": [{"path": "/f/a"}, {"path": "/f/b"}]},
        ),
    ],
)
def test_a_forest_is_made_over_one_seed(run: Run, options: list[str], body: Any) -> None:
    server = Server({"POST /v1/forests": httpx.Response(201, json=FOREST)})
    assert run(server, "forests", "add", "manuals", *options).exit_code == 0
    assert server.bodies() == [{"name": "manuals", **body}]


@pytest.mark.parametrize("options", [[], ["--seed", "/f", "--base", "tiny"]])
def test_a_forest_without_a_seed_or_with_two(run: Run, options: list[str]) -> None:
    done = run(Server({}), "forests", "add", "manuals", *options)
    assert done.exit_code == 2
    assert "one of --seed, --base and --job" in done.stderr


@pytest.mark.parametrize(
    ("options", "ensemble"),
    [
        (["--prior", "a=0.75", "--prior", "b=0.25"], {"prior": {"a": 0.75, "b": 0.25}}),
        (["--no-prior", "--mode", "updating"], {"prior": None, "mode": "updating"}),
        (["--top-k", "2", "--top-k-kind", "static"], {"top_k": 2, "top_k_kind": "static"}),
        (["--weighting", "router"], {"weighting": "router"}),
        (["--top-k", "0", "--history", "previous"], {"top_k": None, "history": "previous"}),
    ],
)
def test_only_what_is_given_is_set(run: Run, options: list[str], ensemble: Any) -> None:
    server = Server({"PATCH /v1/forests/manuals": httpx.Response(200, json=FOREST)})
    assert run(server, "forests", "set", "manuals", *options).exit_code == 0
    assert server.bodies() == [{"ensemble": ensemble}]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--prior", "a"], "NAME=WEIGHT"),
        (["--prior", "=0.5"], "NAME=WEIGHT"),
        (["--prior", "a=much"], "'a=much'"),
        (["--prior", "a=0.5", "--prior", "a=0.5"], "stands twice"),
        (["--prior", "a=1", "--no-prior"], "either --prior or --no-prior"),
        (["--top-k", "-1"], "--top-k"),
    ],
)
def test_settings_that_cannot_be(run: Run, options: list[str], word: str) -> None:
    done = run(Server({}), "forests", "set", "manuals", *options)
    assert done.exit_code == 2
    assert word in " ".join(done.stderr.split())


def test_a_refusal_names_the_field(run: Run) -> None:
    server = Server({"PATCH /v1/forests/f": refusal(422, "ensemble.top_k=9: x", "ensemble.top_k")})
    done = run(server, "forests", "set", "f", "--top-k", "9")
    assert (done.exit_code, done.stderr.count("ensemble.top_k")) == (2, 1)


def test_elms_are_listed_page_by_page(run: Run) -> None:
    other = {**ELM, "id": "elm_2", "name": "perl"}
    server = Server({"GET /v1/forests/f/elms": [page(ELM, more=True), page(other)]})
    done = run(server, "forests", "elms", "f", "--json")
    assert [elm["name"] for elm in json.loads(done.stdout)] == ["python", "perl"]
    assert server.seen[1].url.params["after"] == "elm_1"
    server = Server({"GET /v1/forests/f/elms": page(ELM)})
    assert "code" in run(server, "forests", "elms", "f").stdout


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["/f/a"], {"path": "/f/a"}),
        (["/f/a", "--name", "n", "--domain", "d"], {"path": "/f/a", "name": "n", "domain": "d"}),
        (["--seed", "--domain", "all"], {"seed": True, "domain": "all"}),
    ],
)
def test_an_elm_is_added(run: Run, arguments: list[str], body: Any) -> None:
    server = Server({"POST /v1/forests/f/elms": httpx.Response(201, json=ELM)})
    assert run(server, "forests", "add-elm", "f", *arguments).exit_code == 0
    assert server.bodies() == [body]


def test_an_elm_is_a_folder_or_the_seed(run: Run) -> None:
    for arguments in ([], ["/f/a", "--seed"]):
        assert run(Server({}), "forests", "add-elm", "f", *arguments).exit_code == 2


def test_an_elm_is_taken_out(run: Run) -> None:
    server = Server({"DELETE /v1/forests/f/elms/a": httpx.Response(200, json={"id": "elm_1"})})
    assert run(server, "forests", "remove-elm", "f", "a").exit_code == 0
    assert server.seen[0].method == "DELETE"


def test_a_forest_is_exported_whole(run: Run, tmp_path: Path) -> None:
    server = Server({"GET /v1/forests/f/archive.zip": httpx.Response(200, content=b"zipped")})
    file = tmp_path / "f.zip"
    done = run(server, "forests", "export", "f", str(file))
    assert done.exit_code == 0, done.stderr
    assert file.read_bytes() == b"zipped"
