"""The demo's own parts: its job, the service that it starts, and what it holds the winner to."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks.example_tasks import TARGET

from evomerge.app.cli import jobfile
from evomerge.app.schemas.result import JobResult
from evomerge.app.settings import Settings
from examples import demo


def result(**losses: float | None) -> JobResult:
    """A result with these contenders on held-out data."""
    contenders: list[dict[str, Any]] = [
        {"name": name, "loss": loss, "score": None, "interval": None, "dataset_losses": {}}
        for name, loss in losses.items()
    ]
    return JobResult.model_validate(
        {
            "winner": {
                "stage": "scaling",
                "generation": 3,
                "index": 1,
                "search_loss": 1.0,
                "alpha": {},
                "beta": {},
            },
            "held_out": [
                {"metric": "cross_entropy", "examples": 9, "contenders": contenders},
            ],
            "generations": [],
            "search_examples": 9,
            "held_out_examples": 9,
            "ended_by": None,
            "usage": {},
            "seconds": 1.0,
            "seed": 7,
            "versions": {},
            "hashes": {},
            "artifacts": [],
        }
    )


def program(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let `service` start this Python program instead of the real one."""
    monkeypatch.setattr(demo, "serve_command", lambda port: [sys.executable, "-c", code])


def test_the_job_asks_for_the_target_over_the_pool() -> None:
    spec = jobfile.load(demo.JOB)
    assert spec.pool == demo.POOL
    assert [part.dataset for part in spec.objective.datasets] == [TARGET.name]
    assert (demo.HERE / "data" / f"{TARGET.name}.jsonl").is_file()


def test_the_service_understands_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in demo.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.bases == {demo.BASE_NAME: tmp_path}
    assert settings.roots == [demo.HERE]
    assert settings.data_dir == demo.DATA_DIR


def test_a_winner_that_beats_base_and_uniform_passes() -> None:
    demo.check_proof(result(winner=1.0, base=3.0, best_expert=0.5, uniform=1.1))


def test_a_baseline_that_broke_is_beaten() -> None:
    demo.check_proof(result(winner=1.0, base=None, uniform=1.1))


@pytest.mark.parametrize(
    ("losses", "name"),
    [
        ({"winner": 3.0, "base": 3.0, "uniform": 4.0}, "base"),
        ({"winner": 2.0, "base": 3.0, "uniform": 1.9}, "uniform"),
        ({"winner": None, "base": 3.0, "uniform": None}, "base"),
    ],
)
def test_a_winner_that_is_no_better_fails(losses: dict[str, float | None], name: str) -> None:
    with pytest.raises(demo.DemoError, match=f"does not beat {name}"):
        demo.check_proof(result(**losses))


def test_a_service_is_ended_with_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "ended"
    program(
        monkeypatch,
        "import signal, sys, pathlib\n"
        f"def end(*_): pathlib.Path({str(marker)!r}).touch(); sys.exit()\n"
        f"signal.signal({int(signal.SIGTERM)}, end)\n"
        "print('it is at http://127.0.0.1:4242 (try http://127.0.0.1:4242/docs)', flush=True)\n"
        "signal.pause()\n",
    )
    with demo.service({}, tmp_path / "log") as url:
        assert url == "http://127.0.0.1:4242"
        assert not marker.exists()
    assert marker.exists()


def test_settings_of_another_service_are_not_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_DATABASE_URL", "postgresql+psycopg://elsewhere/production")
    program(
        monkeypatch,
        "import os\n"
        "known = sorted(name for name in os.environ if name.startswith('EVOMERGE_'))\n"
        "print('http://' + '-'.join(known))\n",
    )
    with demo.service({"EVOMERGE_PORT": "1"}, tmp_path / "log") as url:
        assert url == "http://EVOMERGE_PORT"


def test_what_is_printed_afterwards_starts_the_same_service() -> None:
    settings = demo.environment(Path("/models/the base"))
    printed = demo.afterwards(settings, "mj_1", port=8123)
    command = next(line for line in printed.splitlines() if "serve" in line)
    words = shlex.split(command)
    assert dict(word.split("=", 1) for word in words[: len(settings)]) == settings
    assert words[len(settings) :] == demo.serve_command(8123)
    assert "http://127.0.0.1:8123/v1/merge_jobs/mj_1" in printed


def test_a_service_that_dies_is_an_error_that_names_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "import sys; sys.exit('no room')")
    log = tmp_path / "log"
    with pytest.raises(demo.DemoError, match=str(log)), demo.service({}, log):
        pass
    assert log.read_text() == "no room\n"
