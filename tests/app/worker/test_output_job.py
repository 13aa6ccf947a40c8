"""Jobs in the output space, whole: a real server is asked, and what it said is merged."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from tests.app.api.client import Json, created
from tests.support import classroom, jobs
from tests.support.processes import PATIENCE, evomerge
from tests.support.provider import Action, Hang, Provider, Request, Send, provider

from evomerge.app.db.engine import Database
from evomerge.app.db.models import StoredAnswer
from evomerge.app.main import create_app
from evomerge.app.outputs import StoredOutput
from evomerge.app.settings import EndpointLimitsSetting, Settings
from evomerge.app.worker.gathering import CONCURRENCY
from evomerge.app.worker.process import work

ROWS = 40
EXPERTS = len(classroom.MODELS)


@dataclass
class School:
    """A service over a database, and the server that its experts are at."""

    http: httpx.AsyncClient
    settings: Settings
    server: Provider

    async def enrol(self) -> None:
        """Register experts, pool and dataset."""
        for model in classroom.MODELS:
            body = classroom.expert(model, self.server.base_url, price={"input": 1, "output": 2})
            created(await self.http.post("/v1/experts", json=body))
        body = {"name": "school", "experts": list(classroom.MODELS)}
        created(await self.http.post("/v1/pools", json=body))
        files = {"file": ("test.jsonl", classroom.rows(ROWS))}
        created(await self.http.post("/v1/datasets", data={"name": "test"}, files=files))
        self.server.requests.clear()

    async def submit(self, **changes: Any) -> Json:
        """Queue a job."""
        return created(await self.http.post("/v1/merge_jobs", json=spec(**changes)))

    async def run(self, **changes: Any) -> Json:
        """A job from its creation to its end."""
        return await self.finish(await self.submit(**changes))

    async def finish(self, job: Json) -> Json:
        """Let a worker work until the job has ended."""
        stopping = asyncio.Event()
        task = asyncio.create_task(work(self.settings, stopping))
        try:
            while True:
                now: Json = (await self.http.get(f"/v1/merge_jobs/{job['id']}")).json()
                if now["status"] in ("succeeded", "failed", "paused", "cancelled"):
                    return now
                assert not task.done(), task.exception()
                await asyncio.sleep(0.02)
        finally:
            stopping.set()
            await task

    async def until_logged(self, job: Json, answers: int) -> None:
        """Wait until so many answers are in the database."""
        database = Database(self.settings.url)

        async def there() -> bool:
            query = select(func.count()).where(StoredAnswer.answer.is_not(None))
            async with database.read() as session:
                return (await session.scalar(query) or 0) >= answers

        try:
            await jobs.until(there)
        finally:
            await database.dispose()

    async def result(self, job: Json) -> Json:
        found: Json = (await self.http.get(f"/v1/merge_jobs/{job['id']}/result")).json()
        return found

    async def messages(self, job: Json) -> list[str]:
        """What the job has written in its history."""
        page = await self.http.get(f"/v1/merge_jobs/{job['id']}/events", params={"limit": 100})
        return [event["message"] for event in page.json()["data"]]


def spec(**changes: Any) -> Json:
    return {
        "pool": "school",
        "space": "output",
        "objective": {"datasets": [{"dataset": "test"}], "report": ["choice_accuracy"]},
        "method": {
            "name": "evo-merging",
            "scaling": {"evaluations": 160},
            "denoising": {"evaluations": 40},
        },
        **changes,
    }


@pytest.fixture
async def school(database_url: str, tmp_path: Path) -> AsyncIterator[School]:
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        allowed_hosts=["127.0.0.1"],
        allowed_networks=["127.0.0.0/8"],  # type: ignore[list-item]
        # No test waits for its turn.
        endpoint_limits={"*": EndpointLimitsSetting(concurrency=CONCURRENCY)},
        poll_seconds=0.02,
    )
    app: FastAPI = create_app(settings)
    transport = httpx.ASGITransport(app=app)
    async with (
        provider(classroom.answer) as server,
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
    ):
        found = School(http, settings, server)
        await found.enrol()
        yield found


async def test_relatives_that_know_a_half_each_are_merged_and_the_liar_subtracted(
    school: School,
) -> None:
    job = await school.run()
    assert job["status"] == "succeeded", job["error"]
    result = await school.result(job)
    assert len(school.server.requests) == EXPERTS * ROWS
    accuracy = {one["name"]: one["score"] for one in result["held_out"][1]["contenders"]}
    assert accuracy["winner"] >= 0.95 > 0.8 > accuracy["best_expert"]
    assert "base" not in accuracy
    assert result["winner"]["beta"]["liar"][0] < 0
    assert sum(one["requests"] for one in result["calls"].values()) == EXPERTS * ROWS
    stored = StoredOutput.read(school.settings.data_dir / "artifacts" / job["id"])
    assert stored.merge.choices == classroom.CHOICES
    assert [one.name for one in stored.experts] == list(classroom.MODELS)


async def test_a_repeated_job_asks_nobody_and_finds_the_same(school: School) -> None:
    first = await school.run()
    school.server.requests.clear()
    again = await school.run()
    assert not school.server.requests
    one, other = await school.result(first), await school.result(again)
    assert one["winner"] == other["winner"]
    assert one["held_out"] == other["held_out"]
    assert other["calls"] == {}


async def test_the_estimate_is_what_the_job_spends(school: School) -> None:
    foreseen = (await school.http.post("/v1/merge_jobs/estimate", json=spec())).json()
    job = await school.run()
    spent = (await school.result(job))["calls"].values()
    assert foreseen["answers"] == EXPERTS * ROWS
    for name in ("requests", "input_tokens", "output_tokens", "usd"):
        assert foreseen[name] == pytest.approx(sum(one[name] for one in spent), rel=0.1)
    after = (await school.http.post("/v1/merge_jobs/estimate", json=spec())).json()
    assert (after["answers_known"], after["requests"], after["usd"]) == (EXPERTS * ROWS, 0, 0)


def wordy(request: Request) -> Action:
    """The classroom, where a question of the test has thrice the tokens that its bytes say."""
    text = request.body["messages"][-1]["content"]
    count = (5 + len(text) // 4) * (3 if "colour" in text else 1)
    if request.path.endswith("/tokenize"):
        return Send({"count": count, "max_model_len": 4096, "tokens": [0] * count})
    answer = classroom.answer(request)
    if isinstance(answer, Send) and answer.status == 200:
        answer.body["usage"]["prompt_tokens"] = count
    return answer


async def test_a_server_that_tokenizes_is_foreseen_by_its_own_counts(school: School) -> None:
    for counted, answer in ((False, classroom.answer), (True, wordy)):
        school.server.answer = answer
        for model in classroom.MODELS:
            checked = await school.http.post(f"/v1/experts/{model}/check")
            found = checked.json()["info"]["capabilities"]
            assert (found["tokenizes"] == "vllm") is counted
    foreseen = (await school.http.post("/v1/merge_jobs/estimate", json=spec())).json()
    spent = (await school.result(await school.run()))["calls"].values()
    actual = sum(one["input_tokens"] for one in spent)
    assert foreseen["input_tokens"] == pytest.approx(actual, rel=0.05)


def wordy_in_private(request: Request) -> Action:
    """The same, from a server that tokenizes for nobody."""
    return classroom.answer(request) if request.path.endswith("/tokenize") else wordy(request)


async def test_a_few_answers_correct_the_estimate_of_the_others(school: School) -> None:
    school.server.answer = wordy_in_private
    blind = (await school.http.post("/v1/merge_jobs/estimate", json=spec())).json()
    some = await school.run(budget={"requests": 40})
    first = sum(one["input_tokens"] for one in (await school.result(some))["calls"].values())
    foreseen = (await school.http.post("/v1/merge_jobs/estimate", json=spec())).json()
    rest = (await school.result(await school.run()))["calls"].values()
    actual = sum(one["input_tokens"] for one in rest)

    assert foreseen["answers_known"] == 40
    assert foreseen["input_tokens"] == pytest.approx(actual, rel=0.05)
    assert first + actual > 2 * blind["input_tokens"]


async def test_a_dry_run_bears_a_tokenizer_that_has_gone(school: School) -> None:
    school.server.answer = wordy
    for model in classroom.MODELS:
        await school.http.post(f"/v1/experts/{model}/check")
    school.server.answer = classroom.answer
    foreseen = await school.http.post("/v1/merge_jobs/estimate", json=spec())
    assert foreseen.status_code == 200
    assert foreseen.json()["requests"] == EXPERTS * ROWS


async def test_a_budget_of_requests_ends_the_asking_and_the_job_says_so(school: School) -> None:
    job = await school.run(budget={"requests": 84})
    assert job["status"] == "succeeded", job["error"]
    result = await school.result(job)
    assert len(school.server.requests) <= 84
    assert result["ended_by"] == "requests"
    examples = result["search_examples"] + result["held_out_examples"]
    assert 18 <= examples <= 21
    assert any("budget of requests" in message for message in await school.messages(job))


async def test_a_budget_for_nothing_useful_fails_the_job_by_its_name(school: School) -> None:
    job = await school.run(budget={"requests": 3})
    assert job["status"] == "failed"
    assert (job["error"]["code"], job["error"]["param"]) == ("budget_too_small", "budget.requests")
    assert len(school.server.requests) <= 3


@dataclass(frozen=True)
class Stuck:
    """The classroom, where some models answer at most so many questions, and no further one."""

    models: frozenset[str]
    left: dict[str, int]

    @classmethod
    def of(cls, answers: int, *models: str) -> Stuck:
        return cls(frozenset(models), dict.fromkeys(models, answers))

    def __call__(self, request: Request) -> Action:
        model = request.body["model"]
        if model in self.models:
            self.left[model] -= 1
            if self.left[model] < 0:
                return Hang()
        return classroom.answer(request)


async def test_time_that_runs_out_over_one_silent_expert_leaves_it_out_and_merges_the_rest(
    school: School,
) -> None:
    """The others have answered everything: what is there is searched, and the result says why."""
    school.server.answer = Stuck.of(1, "noise")
    job = await school.run(budget={"seconds": 4})
    assert job["status"] == "succeeded", job["error"]
    result = await school.result(job)
    assert result["ended_by"] == "seconds"
    assert result["search_examples"] + result["held_out_examples"] == ROWS
    why = f"asked about 1 of {ROWS} examples when the budget of seconds was reached"
    assert result["left_out"] == {"noise": why}
    assert set(result["winner"]["beta"]) == set(classroom.MODELS) - {"noise"}
    stored = StoredOutput.read(school.settings.data_dir / "artifacts" / job["id"])
    assert "noise" not in [one.name for one in stored.experts]
    accuracy = {one["name"]: one["score"] for one in result["held_out"][1]["contenders"]}
    assert accuracy["winner"] >= accuracy["best_expert"]
    messages = await school.messages(job)
    assert any("with 3 of 4 experts" in message for message in messages)
    assert any("'noise' is left out" in message for message in messages)


async def test_answers_that_are_there_are_merged_even_if_they_took_all_the_time(
    school: School,
) -> None:
    """A second attempt begins after the end of its time: every expert alone and the known starts
    cost nothing."""
    await school.run()
    job = await school.run(budget={"seconds": 1e-6})
    assert job["status"] == "succeeded", job["error"]
    result = await school.result(job)
    assert (result["ended_by"], result["left_out"]) == ("seconds", {})
    assert {one["stage"] for one in result["generations"]} == {"probe", "warm_start"}
    assert result["search_examples"] + result["held_out_examples"] == ROWS


async def test_time_in_which_nobody_answered_fails_the_job_by_name_and_value(
    school: School,
) -> None:
    school.server.answer = Stuck.of(0, *classroom.MODELS)
    job = await school.run(budget={"seconds": 0.5})
    assert (job["status"], job["error"]["code"]) == ("failed", "budget_too_small")
    assert job["error"]["param"] == "budget.seconds"
    assert "budget of seconds (0.5)" in job["error"]["message"]


class Slow:
    """The classroom that answers so many questions and leaves the others waiting."""

    def __init__(self, answers: int) -> None:
        self.left = answers
        self.answered: list[str] = []
        self.stuck = asyncio.Event()

    def __call__(self, request: Request) -> Action:
        if self.left == 0:
            self.stuck.set()
            return Hang()
        self.left -= 1
        self.answered.append(f"{request.body['model']} {request.body['messages'][-1]['content']}")
        return classroom.answer(request)


async def test_a_worker_killed_while_it_asks_pays_again_for_what_was_under_way_alone(
    school: School,
) -> None:
    slow = school.server.answer = Slow(70)
    job = await school.submit()
    environment = {
        "EVOMERGE_DATABASE_URL": school.settings.url,
        "EVOMERGE_DATA_DIR": str(school.settings.data_dir),
        "EVOMERGE_ALLOWED_HOSTS": '["127.0.0.1"]',
        "EVOMERGE_ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        "EVOMERGE_LEASE_SECONDS": "2",
    }
    async with evomerge("worker", environment=environment) as worker:
        await asyncio.wait_for(slow.stuck.wait(), PATIENCE)
        await school.until_logged(job, answers=70)
        worker.send(signal.SIGKILL)
    slow.left = -1
    ended = await school.finish(job)
    assert ended["status"] == "succeeded", ended["error"]
    assert ended["attempts"] == 2
    # Everything was answered, and nothing twice: what was under way had no answer yet.
    assert len(slow.answered) == len(set(slow.answered)) == EXPERTS * ROWS
    again = await school.run()
    assert (await school.result(job))["winner"] == (await school.result(again))["winner"]


async def test_a_job_paused_while_it_asks_goes_on_where_it_was(school: School) -> None:
    slow = school.server.answer = Slow(50)
    job = await school.submit()
    running = asyncio.create_task(school.finish(job))
    await asyncio.wait_for(slow.stuck.wait(), PATIENCE)
    paused = await school.http.post(f"/v1/merge_jobs/{job['id']}/pause")
    assert paused.status_code == 200
    assert (await running)["status"] == "paused"
    slow.left = -1
    assert (await school.http.post(f"/v1/merge_jobs/{job['id']}/resume")).status_code == 200
    assert (await school.finish(job))["status"] == "succeeded"
    assert len(slow.answered) == len(set(slow.answered)) == EXPERTS * ROWS


async def test_an_expert_that_cannot_be_asked_ends_the_job_and_what_was_paid_for_stays(
    school: School,
) -> None:
    def locked(request: Request) -> Action:
        if request.body["model"] == "liar":
            return Send({"error": {"message": "invalid api key"}}, 401)
        return classroom.answer(request)

    school.server.answer = locked
    job = await school.run()
    assert (job["status"], job["error"]["code"]) == ("failed", "model_failed")
    assert "liar" in job["error"]["message"]
    before = len(school.server.requests)
    school.server.answer = classroom.answer
    await school.http.post(f"/v1/merge_jobs/{job['id']}/resume")
    assert (await school.finish(job))["status"] == "succeeded"
    refused = sum(request.body["model"] == "liar" for request in school.server.requests[:before])
    assert len(school.server.requests) - refused <= EXPERTS * ROWS + CONCURRENCY


async def test_experts_and_spaces_that_do_not_fit_are_refused_at_creation(school: School) -> None:
    refused = {
        "space": spec(space="lora"),
        "objective.metric": spec(
            objective={"datasets": [{"dataset": "test"}], "metric": "item_f1"}
        ),
        "experts": spec(fusion={"choice_scores": "prompt_logprobs"}),
    }
    for param, body in refused.items():
        answer = await school.http.post("/v1/merge_jobs", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["error"]["param"] == param
    assert not school.server.requests
