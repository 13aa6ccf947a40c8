"""Every command against a server made of a table: what it sends, prints and exits with."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from tests.app.cli.conftest import Run
from tests.app.cli.server import RESULT, Server, job, page, refusal

SPEC = """
name: film
pool: relatives
objective:
  datasets: [{dataset: film}]
"""


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(SPEC)
    return file


def finishing(*states: str) -> Server:
    """A server whose job goes through `states`."""
    return Server(
        {
            "POST /v1/merge_jobs": httpx.Response(201, json=job("queued")),
            "GET /v1/merge_jobs/mj_1": [httpx.Response(200, json=job(state)) for state in states],
            "GET /v1/merge_jobs/mj_1/result": httpx.Response(200, json=RESULT),
        }
    )


def test_run_submits_the_file_and_shows_progress_and_result(run: Run, job_file: Path) -> None:
    server = finishing("queued", "running", "succeeded")
    done = run(server, "run", str(job_file))
    assert done.exit_code == 0
    assert "scaling, generation 3: 40 of 400 evaluations, best loss 1.2500" in done.stderr
    assert "[1.7000, 1.9000]" in done.stdout
    assert "<0.001" in done.stdout
    assert "-0.200" in done.stdout
    sent = server.bodies()[0]
    assert (sent["name"], sent["pool"]) == ("film", "relatives")


def test_run_prints_json_alone_on_standard_output(run: Run, job_file: Path) -> None:
    done = run(finishing("succeeded"), "run", str(job_file), "--json")
    assert json.loads(done.stdout) == RESULT


def test_run_detached_prints_the_id_and_does_not_wait(run: Run, job_file: Path) -> None:
    server = finishing("running")
    done = run(server, "run", str(job_file), "--detach")
    assert (done.exit_code, done.stdout) == (0, "mj_1\n")
    assert [request.method for request in server.seen] == ["POST"]


@pytest.mark.parametrize("state", ["failed", "cancelled", "paused"])
def test_run_exits_1_when_the_job_does_not_succeed(run: Run, job_file: Path, state: str) -> None:
    done = run(finishing("running", state), "run", str(job_file))
    assert done.exit_code == 1
    assert f"error: mj_1 {state}" in done.stderr


def test_run_sends_the_idempotency_key(run: Run, job_file: Path) -> None:
    server = finishing("running")
    run(server, "run", str(job_file), "--detach", "--idempotency-key", "once")
    assert server.seen[0].headers["idempotency-key"] == "once"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pool: [", "not YAML"),
        ("- a\n- b\n", "a job is a mapping of fields, got list"),
        (SPEC + "seed: -1\n", "seed: Input should be greater than or equal to 0, got -1"),
        (SPEC + "sede: 1\n", "sede: is not a known field, got 1"),
        (SPEC + "seed: 1\nseed: 2\n", "'seed' stands twice"),
        (
            SPEC + "method: {name: evo-merging, scaling: {bounds: {low: 2, high: 1}}}\n",
            "method.scaling.bounds: low=2.0 must be below high=1.0",
        ),
        (SPEC + "method: {name: cma, population: 1}\n", "method.population"),
        (SPEC + "budget: {evaluations: 0}\n", "budget.evaluations"),
        ("objective: {datasets: [{dataset: d}]}\n", "give either pool or experts"),
        ("pool: p\nobjective: {datasets: []}\n", "objective.datasets"),
    ],
)
def test_a_wrong_job_file_is_one_line_with_file_field_and_value(
    run: Run, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    done = run(Server({}), "run", str(file))
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stderr.startswith(f"error: {file}: ")
    assert done.stderr.count("\n") == 1


def test_a_missing_job_file_is_named(run: Run, tmp_path: Path) -> None:
    done = run(Server({}), "run", str(tmp_path / "none.yaml"))
    assert done.exit_code == 2
    assert done.stderr == f"error: {tmp_path / 'none.yaml'}: No such file or directory\n"


def test_a_refusal_exits_2_and_names_the_field(run: Run, job_file: Path) -> None:
    server = Server({"POST /v1/merge_jobs": refusal(404, "'relatives' is unknown", "pool")})
    done = run(server, "run", str(job_file))
    assert (done.exit_code, done.stderr) == (2, "error: pool: 'relatives' is unknown\n")


def test_a_refusal_of_several_fields_is_a_line_each(run: Run, job_file: Path) -> None:
    details = [{"message": "a: is wrong"}, {"message": "b: is wrong"}]
    error = {"message": "a: is wrong; b: is wrong", "param": "a", "details": details}
    server = Server({"POST /v1/merge_jobs": httpx.Response(422, json={"error": error})})
    done = run(server, "run", str(job_file))
    assert (done.exit_code, done.stderr) == (2, "error: a: is wrong\nerror: b: is wrong\n")


def test_a_broken_server_exits_3(run: Run) -> None:
    server = Server({"GET /v1/merge_jobs": refusal(503, "the database is away")})
    done = run(server, "jobs", "list")
    assert (done.exit_code, done.stderr) == (3, "error: the database is away\n")


def test_a_server_that_is_away_exits_3_and_is_named(run: Run) -> None:
    done = run(Server({"GET /v1/experts": httpx.ConnectError("refused")}), "experts", "list")
    assert done.exit_code == 3
    assert done.stderr == "error: cannot reach http://127.0.0.1:8000: refused\n"


def test_a_wrong_address_exits_2(run: Run) -> None:
    done = run(Server({}), "--url", "ftp://x", "jobs", "list")
    assert done.exit_code == 2


def test_the_key_comes_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMERGE_API_KEY", "sesame")
    monkeypatch.setenv("EVOMERGE_URL", "http://elsewhere:1")
    server = Server({"GET /v1/experts": page()})
    assert run(server, "experts", "list").exit_code == 0
    assert server.seen[0].headers["authorization"] == "Bearer sesame"
    assert server.seen[0].url.host == "elsewhere"


def test_lists_follow_the_pages_and_stop_at_the_limit(run: Run) -> None:
    first = [{"id": f"mj_{number}"} | job() for number in range(2)]
    server = Server({"GET /v1/merge_jobs": [page(*first, more=True), page(job(), more=True)]})
    done = run(server, "jobs", "list", "--limit", "3", "--status", "running", "--json")
    assert len(json.loads(done.stdout)) == 3
    assert [dict(request.url.params) for request in server.seen] == [
        {"status": "running", "limit": "3"},
        {"status": "running", "limit": "1", "after": "mj_1"},
    ]


@pytest.mark.parametrize(
    ("group", "row", "shown"),
    [
        ("experts", {"id": "ex_1", "name": "[red]", "kind": "lora", "info": {"rank": 8}}, "[red]"),
        ("pools", {"id": "pool_1", "name": "relatives", "experts": ["a", "b"]}, "relatives"),
        ("datasets", {"id": "ds_1", "name": "film", "kind": "completion", "rows": 9}, "film"),
    ],
)
def test_each_collection_is_listed_shown_and_deleted(
    run: Run, group: str, row: dict[str, object], shown: str
) -> None:
    one = f"/v1/{group}/{row['id']}"
    server = Server(
        {
            f"GET /v1/{group}": page(row),
            f"GET {one}": httpx.Response(200, json=row),
            f"DELETE {one}": httpx.Response(204),
        }
    )
    assert shown in run(server, group, "list").stdout
    assert shown in run(server, group, "show", str(row["id"])).stdout
    assert run(server, group, "delete", str(row["id"])).exit_code == 0
    assert server.seen[-1].method == "DELETE"


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume"])
def test_a_job_is_told_to_stop_or_go_on(run: Run, verb: str) -> None:
    server = Server({f"POST /v1/merge_jobs/mj_1/{verb}": httpx.Response(200, json=job("pausing"))})
    assert run(server, verb, "mj_1").stdout == "mj_1 pausing\n"


def test_result_is_printed_or_given_as_json(run: Run) -> None:
    server = Server({"GET /v1/merge_jobs/mj_1/result": httpx.Response(200, json=RESULT)})
    assert "uniform" not in run(server, "result", "mj_1").stdout
    assert json.loads(run(server, "result", "mj_1", "--json").stdout) == RESULT


def test_events_are_printed_one_a_line(run: Run) -> None:
    happened = {"id": 4, "created_at": 0, "level": "info", "message": "started", "data": {}}
    server = Server({"GET /v1/merge_jobs/mj_1/events": page(happened)})
    line = "1970-01-01 00:00:00Z info  started\n"
    assert run(server, "jobs", "events", "mj_1").stdout == line
    assert json.loads(run(server, "jobs", "events", "mj_1", "--json").stdout) == happened


def test_download_writes_every_artifact(run: Run, tmp_path: Path) -> None:
    files = "/v1/merge_jobs/mj_1/artifacts"
    server = Server(
        {
            f"GET {files}": page({"name": "a.bin", "bytes": 2}, {"name": "sub/b.bin", "bytes": 1}),
            f"GET {files}/a.bin": httpx.Response(200, content=b"aa"),
            f"GET {files}/sub/b.bin": httpx.Response(200, content=b"b"),
        }
    )
    assert run(server, "download", "mj_1", str(tmp_path / "out")).exit_code == 0
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"aa"
    assert (tmp_path / "out" / "sub" / "b.bin").read_bytes() == b"b"


def test_download_writes_nothing_outside_its_folder(run: Run, tmp_path: Path) -> None:
    server = Server({"GET /v1/merge_jobs/mj_1/artifacts": page({"name": "../evil", "bytes": 1})})
    done = run(server, "download", "mj_1", str(tmp_path / "out"))
    assert done.exit_code == 3
    assert "'../evil'" in done.stderr


def test_a_pool_is_made_of_experts_or_of_folders(run: Run) -> None:
    server = Server({"POST /v1/pools": httpx.Response(201, json={"id": "pool_1"})})
    assert run(server, "pools", "add", "relatives", "a", "b").exit_code == 0
    assert server.bodies() == [{"name": "relatives", "experts": ["a", "b"]}]
    assert run(server, "pools", "add", "relatives").exit_code == 2
    assert run(server, "pools", "add", "relatives", "a", "--folders", "x/*").exit_code == 2


def test_a_file_of_api_experts_is_registered_one_by_one(run: Run, tmp_path: Path) -> None:
    server = Server({"POST /v1/experts": [httpx.Response(201, json={"id": "ex"})] * 2})
    file = tmp_path / "experts.yaml"
    file.write_text("- {name: a, model: m}\n- {name: b, model: m, system: be brief}\n")
    assert run(server, "experts", "add-api", str(file)).exit_code == 0
    common = {"kind": "api", "model": "m"}
    expected = [{**common, "name": "a"}, {**common, "name": "b", "system": "be brief"}]
    assert server.bodies() == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [("[]", "holds nothing"), ("- 7", "entry 1 must be a mapping"), ("{a: 1", "not YAML")],
)
def test_a_file_that_is_no_experts_is_refused(
    run: Run, tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "experts.yaml"
    file.write_text(text)
    done = run(Server({}), "experts", "add-api", str(file))
    assert done.exit_code == 2
    assert said in " ".join(done.stderr.split())


def test_an_api_expert_is_probed_again(run: Run) -> None:
    server = Server({"POST /v1/experts/a/check": httpx.Response(200, json={"id": "ex_1"})})
    assert run(server, "experts", "check", "a").exit_code == 0


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    assert "Exit codes" in " ".join(run(None, "--help").stdout.split())
