"""Jobs over forests on the command line: what is sent, followed and printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from rich.console import Console
from tests.app.cli.conftest import Run
from tests.app.cli.server import Server, page
from tests.app.cli.test_progress import shown

from evomerge.app.cli import result
from evomerge.app.cli.progress import headline
from evomerge.app.schemas.forest_examples import (
    BRANCH_TRAIN_SPEC,
    FOREST_EVENT,
    FOREST_JOB_ID,
    FOREST_RESULT,
    forest_job,
)

JOB = forest_job({**BRANCH_TRAIN_SPEC, "name": None})
ENDED = {**JOB, "status": "succeeded"}
PATH = f"/v1/forest_jobs/{FOREST_JOB_ID}"


def printed(found: dict[str, Any]) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(result.tables(found))
    return "\n".join(" ".join(line.split()) for line in capture.get().splitlines())


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(BRANCH_TRAIN_SPEC))
    return str(tmp_path / "job.yaml")


def test_a_file_with_a_type_is_a_job_over_a_forest(run: Run, file: str) -> None:
    server = Server(
        {
            "POST /v1/forest_jobs": httpx.Response(201, json=JOB),
            "POST /v1/forest_jobs/estimate": httpx.Response(200, json={"tokens": 5}),
            f"GET {PATH}": [httpx.Response(200, json=JOB), httpx.Response(200, json=ENDED)],
            f"GET {PATH}/result": httpx.Response(200, json=FOREST_RESULT),
        }
    )
    assert json.loads(run(server, "run", file, "--dry-run").stdout) == {"tokens": 5}
    assert server.bodies() == [BRANCH_TRAIN_SPEC]
    followed = run(server, "run", file)
    assert followed.exit_code == 0, followed.output
    assert "1220 of 1220 steps" in followed.stdout


@pytest.mark.parametrize("verb", ["pause", "cancel", "resume"])
def test_commands_know_a_job_by_its_id(run: Run, verb: str) -> None:
    server = Server(
        {
            f"POST {PATH}/{verb}": httpx.Response(200, json={**JOB, "status": "paused"}),
            f"GET {PATH}": httpx.Response(200, json=JOB),
            f"GET {PATH}/events": page(FOREST_EVENT),
            "GET /v1/forest_jobs": page(JOB),
        }
    )
    assert run(server, verb, FOREST_JOB_ID).stdout.split() == [FOREST_JOB_ID, "paused"]
    assert "branch_train" in run(server, "jobs", "show", FOREST_JOB_ID).stdout
    assert "step 620 of 1220" in run(server, "jobs", "events", FOREST_JOB_ID).stdout
    assert "manuals" in run(server, "forest-jobs", "list").stdout


def test_a_field_that_is_wrong_is_named(run: Run, tmp_path: Path) -> None:
    spec = {**BRANCH_TRAIN_SPEC, "recipe": {"tokens": 0}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    refused = run(None, "run", str(tmp_path / "job.yaml"))
    assert refused.exit_code == 2
    assert "recipe.tokens" in refused.output
    (tmp_path / "job.yaml").write_text("type: prune\n")
    assert "type" in run(None, "run", str(tmp_path / "job.yaml")).output


def test_a_training_is_shown_by_its_steps() -> None:
    bar = shown(JOB, terminal=True)
    for part in ("training", "620/1220 steps", "loss 3.1180", "0:05:03 left"):
        assert part in bar
    reading = {**JOB, "progress": {"stage": "reading", "domains": 2, "planned_domains": 5}}
    assert "2/5 domains" in shown(reading, terminal=True)
    assert headline({**JOB, "progress": {"stage": "branching"}}) == "choosing where to start"


def test_a_training_s_result() -> None:
    text = printed(FOREST_RESULT)
    assert "perl 4997120 2.8020" in text
    assert "python 1" in text
    assert "1220 of 1220 steps, 4997120 tokens, perplexity 16.48." in text
    assert "It joined forest_3d9b17e2c4a85f60718293a4 as elm_f0e1d2c3b4a5968778695a4b." in text


def test_a_table_of_perplexities() -> None:
    interval = {"low": 9.5, "high": 12.5, "level": 0.95}
    group = {"perplexity": 11.0, "interval": interval, "domains": 2}
    none = {"perplexity": None, "interval": None, "domains": 0}
    one = {"perplexity": 10.0, "interval": None}
    domain = {"dev_documents": 3, "test_documents": 4, "test_tokens": 50, "prior": {"a": 1.0}}
    evaluation = {
        "domains": [
            {"domain": "a", "trained": True, **domain},
            {"domain": "b", "trained": False, **domain},
        ],
        "models": [
            {
                "model": "seed",
                "domains": {"a": one, "b": one},
                "trained": group,
                "unseen": none,
                "all": group,
            }
        ],
        "tokens": 500,
        "seed_share": 0.5,
    }
    text = printed({**FOREST_RESULT, "training": None, "evaluation": evaluation})
    assert "model all 95 % interval trained unseen a b (unseen)" in text
    assert "seed 11.00 [9.50, 12.50] 11.00 - 10.00 10.00" in text
    assert "500 tokens read." in text
