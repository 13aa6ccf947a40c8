"""One peer's run: its program in a process of its own, timed and metered from outside."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from benchmarks.peers.meter import Meter, Taken
from benchmarks.peers.task import Report, ReportError, Task, read_report

# Nothing is fetched, and nobody is told that it runs.
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "WANDB_MODE": "disabled",
    "TOKENIZERS_PARALLELISM": "false",
}
_TOLD = 300
# As Python ends a traceback.
_ERROR = re.compile(r"[\w.]+(Error|Exception|Exit)\b")


@dataclass(frozen=True)
class Run:
    """How it went.

    Attributes:
        seconds: of the whole process, imports and loading included.
        taken: by it and its children.
        report: what it found; None where it failed.
        failure: why it failed, in its own words; None where it did not.
    """

    seconds: float
    taken: Taken
    report: Report | None
    failure: str | None


def run_child(
    python: Path,
    script: Path,
    task: Task,
    folder: Path,
    *,
    options: Mapping[str, Any] | None = None,
    limit: float = 1800.0,
) -> Run:
    """Run a peer's program in an empty working folder; a failure is a result, not an error.

    Args:
        python: of the peer's environment.
        script: reads the task file that is its only argument and writes the report.
        folder: emptied first; its log.txt keeps all that the program said.
        options: of this peer, handed on in the task file.
        limit: seconds after which it is ended.

    Raises:
        OSError: the folder cannot be written, or the Python is missing.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = [str(python), str(script), str(task.write(folder, options or {}))]
    log = folder / "log.txt"
    begun = time.perf_counter()
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=_environment(folder, task.threads),
            process_group=0,
        ) as child,
        Meter(child.pid, folder) as meter,
    ):
        try:
            code: int | None = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        seconds = time.perf_counter() - begun
        _end(child, meter)
    failure = _failure(code, limit, log)
    if failure is None:
        try:
            return Run(seconds, meter.taken, read_report(folder / "report.json"), None)
        except ReportError as error:
            failure = str(error)
    return Run(seconds, meter.taken, None, failure)


def _environment(folder: Path, threads: int) -> dict[str, str]:
    own = ("EVOMERGE_", "PYTHONPATH", "HF_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    caches = {"HF_HOME": str(folder / "hf"), "MPLCONFIGDIR": str(folder / "matplotlib")}
    return {**inherited, **_OFFLINE, **caches, "OMP_NUM_THREADS": str(threads)}


def _end(child: subprocess.Popen[bytes], meter: Meter) -> None:
    """End what still runs of the child and of all that it started."""
    for process in meter.left():
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    child.wait()


def _failure(code: int | None, limit: float, log: Path) -> str | None:
    """The last error that a failed program told of, or else the last line that it said."""
    if code == 0:
        return None
    if code is None:
        return f"not done after {limit:.0f} s"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line.strip() for line in lines if line.strip()]
    errors = [line for line in told if _ERROR.match(line)]
    last = (errors or told or ["it said nothing"])[-1]
    return f"exit code {code}: {last[:_TOLD]}"
