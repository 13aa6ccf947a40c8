"""A peer's run, by programs that stand for one: what is told of it, and of its failure."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import pytest
from benchmarks.peers.running import Run, run_child
from benchmarks.peers.task import EncodedRow, Task

READ = """
import json, sys, pathlib
task = json.load(open(sys.argv[1]))
folder = pathlib.Path(task["folder"])
def report(**fields):
    model = folder / "model"
    model.mkdir(exist_ok=True)
    full = {"model": str(model), "kind": "adapter", "evaluations": task["budget"],
            "search_loss": 1.5, "search_seconds": 2.0, **fields}
    pathlib.Path(task["report"]).write_text(json.dumps(full))
"""


@pytest.fixture
def task(tmp_path: Path) -> Task:
    row = EncodedRow("a", "b", (1, 2, 3), 1)
    experts = {"one": tmp_path / "one", "two": tmp_path / "two"}
    return Task(tmp_path / "base", experts, [row], [row], 0.5, 6, 2, 3, 1)


def run(task: Task, tmp_path: Path, program: str, limit: float = 60.0) -> Run:
    script = tmp_path / "peer.py"
    script.write_text(READ + program)
    folder = tmp_path / "run"
    return run_child(
        Path(sys.executable), script, task, folder, options={"form": "fair"}, limit=limit
    )


def test_a_peer_is_given_the_whole_task(task: Task, tmp_path: Path) -> None:
    done = run(task, tmp_path, "report(note=json.dumps(task))")
    assert done.report is not None
    given = json.loads(done.report.note)
    assert given["experts"] == {name: str(path) for name, path in task.experts.items()}
    assert given["search"] == [{"prompt": "a", "completion": "b", "tokens": [1, 2, 3], "start": 1}]
    assert (given["budget"], given["seed"], given["options"]) == (6, 3, {"form": "fair"})


def test_what_it_reports_is_read_back(task: Task, tmp_path: Path) -> None:
    done = run(task, tmp_path, "report(versions={'peer': '1.0'})")
    assert done.failure is None
    assert done.report is not None
    assert done.report.model == tmp_path / "run" / "model"
    assert (done.report.evaluations, done.report.search_loss) == (6, 1.5)
    assert done.report.versions == {"peer": "1.0"}


def test_an_error_is_told_by_its_last_line(task: Task, tmp_path: Path) -> None:
    done = run(task, tmp_path, "raise RuntimeError('no GPU here')")
    assert done.report is None
    assert done.failure == "exit code 1: RuntimeError: no GPU here"


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("", "it wrote no report"),
        ("pathlib.Path(task['report']).write_text('{')", "cannot be read"),
        ("report(kind='pickle')", "'pickle' is neither"),
        ("report(evaluations=0)", "evaluations: 0"),
        ("report(model='nowhere')", "model: nowhere is no folder"),
        ("report(speed=3)", "cannot be read"),
    ],
)
def test_a_report_that_cannot_be_believed_is_a_failure(
    task: Task, tmp_path: Path, program: str, told: str
) -> None:
    done = run(task, tmp_path, program)
    assert done.report is None
    assert done.failure is not None
    assert told in done.failure


def test_a_peer_that_goes_on_too_long_is_ended_with_all_it_started(
    task: Task, tmp_path: Path
) -> None:
    program = """
import subprocess, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                         start_new_session=True)
(folder / "pid").write_text(str(child.pid))
time.sleep(600)
"""
    done = run(task, tmp_path, program, limit=4.0)
    assert done.failure == "not done after 4 s"
    pid = int((tmp_path / "run" / "pid").read_text())
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail(f"process {pid} still runs")


def test_memory_and_disk_of_all_its_processes_are_counted(task: Task, tmp_path: Path) -> None:
    program = """
import subprocess, time
held = "held = bytearray(60_000_000); import time; time.sleep(2)"
child = subprocess.Popen([sys.executable, "-c", held])
(folder / "scratch").write_bytes(b"x" * 5_000_000)
time.sleep(2)
(folder / "scratch").unlink()
child.wait()
report()
"""
    done = run(task, tmp_path, program)
    assert done.failure is None
    assert done.taken.memory > 60_000_000
    assert done.taken.disk >= 5_000_000


def test_settings_of_this_project_do_not_reach_a_peer(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_DATA_DIR", "elsewhere")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    done = run(task, tmp_path, "import os; report(note=json.dumps(dict(os.environ)))")
    assert done.report is not None
    given = json.loads(done.report.note)
    assert not {"EVOMERGE_DATA_DIR", "PYTHONPATH"} & given.keys()
    assert given["HF_HUB_OFFLINE"] == "1"
    assert given["OMP_NUM_THREADS"] == "1"
