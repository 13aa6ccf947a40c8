"""The second demo's own parts: its job, its service's settings, what it says at the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import make_choice_example
from evomerge.app.cli import jobfile
from evomerge.app.schemas.result import (
    CallsResult,
    ContenderResult,
    JobResult,
    MetricResult,
    WinnerResult,
)
from evomerge.app.settings import Settings
from examples import demo_api


def contender(name: str, loss: float | None, **more: object) -> ContenderResult:
    fields = {"score": None, "interval": None, "dataset_losses": {}, **more}
    return ContenderResult(name=name, loss=loss, **fields)  # type: ignore[arg-type]


def metric(winner: float | None, best: float, p_value: float = 0.0123) -> MetricResult:
    rows = [
        contender("winner", winner),
        contender("best_expert", best, expert="south", p_value=p_value),
    ]
    return MetricResult(metric="cross_entropy", examples=9, contenders=rows)


def test_the_job_is_over_what_the_demo_registers() -> None:
    spec = jobfile.load(demo_api.JOB)
    assert spec.space == "output"
    assert spec.serve_as == "currency-es"
    for name in demo_api.EXPERTS:
        assert (demo_api.HERE / "pool" / name / "adapter_config.json").is_file()
    for part in spec.objective.datasets:
        assert (demo_api.HERE / "data" / f"{part.dataset}.jsonl").is_file()


def test_the_dataset_is_what_its_recipe_makes() -> None:
    lines = make_choice_example.FILE.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == make_choice_example.rows()


def test_the_service_may_call_this_machine_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in demo_api.settings(tmp_path).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.serve_experts
    assert settings.allowed_hosts == ["127.0.0.1"]
    assert [str(network) for network in settings.allowed_networks] == ["127.0.0.0/8"]


def test_the_verdict_says_it_either_way() -> None:
    ahead = demo_api.verdict(metric(0.25, 0.5))
    assert "beats the best single expert, south: 0.250 against 0.500, p = 0.012" in ahead
    assert "not beyond chance" in demo_api.verdict(metric(0.25, 0.5, p_value=0.05))
    assert "does NOT beat" in demo_api.verdict(metric(0.5, 0.5))
    assert "does NOT beat" in demo_api.verdict(metric(None, 0.5))


def test_what_was_foreseen_stands_beside_what_was_spent() -> None:
    calls = CallsResult(requests=2, input_tokens=30, output_tokens=4, usd=0.0)
    found = JobResult(
        winner=WinnerResult(
            stage="scaling", generation=0, index=0, search_loss=1.0, alpha={}, beta={}
        ),
        held_out=[],
        generations=[],
        search_examples=1,
        held_out_examples=1,
        ended_by=None,
        usage={},
        calls={"one": calls, "two": calls},
        seconds=1.0,
        seed=7,
        versions={},
        hashes={},
        artifacts=[],
    )
    estimate = {"requests": 4, "input_tokens": 58, "output_tokens": 8}
    said = demo_api.foreseen_and_spent(estimate, found)
    assert said == (
        "requests 4 foreseen, 4 spent; input tokens 58 foreseen, 60 spent; "
        "output tokens 8 foreseen, 8 spent"
    )
