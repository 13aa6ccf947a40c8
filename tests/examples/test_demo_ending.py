"""The demo is ended from outside: real processes, over a tiny model."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from tests.support.processes import PATIENCE, Running, clean_environment
from tests.support.tiny import make_adapter, make_base

from evomerge.evaluation import Example, to_jsonl
from examples import demo

ROOT = Path(__file__).resolve().parents[2]
# The demo as it is, over the test's own base, pool, data and job.
# A shell that starts the tests in the background has them ignore SIGINT, and so their children.
DEMO = """
import signal
import sys
from pathlib import Path
from examples import demo

signal.signal(signal.SIGINT, signal.default_int_handler)
demo.HERE = Path(sys.argv[1])
demo.JOB = demo.HERE / "job.yaml"
demo.ensure_base = lambda say: demo.HERE / "base"
sys.exit(demo.main())
"""
# Too long to end by itself while the test lasts.
JOB = f"""
pool: {demo.POOL}
objective: {{datasets: [{{dataset: facts}}]}}
method: {{name: random, population: 4, evaluations: 1000000}}
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder that stands for the demo's."""
    folder = tmp_path / "examples"
    base = make_base(folder / "base")
    for number in range(2):
        make_adapter(folder / "pool" / f"expert-{number}", base, seed=number + 1)
    (folder / "data").mkdir()
    rows = [Example(f"{n} is", f"answer {n}") for n in range(8)]
    (folder / "data" / "facts.jsonl").write_bytes(to_jsonl(rows))
    (folder / "job.yaml").write_text(JOB)
    return folder


def processes_of(demo_process: int, log: Path) -> set[int]:
    """The service that the demo started, and the worker that the service did."""
    children = Path(f"/proc/{demo_process}/task/{demo_process}/children").read_text()
    workers = re.findall(r"started, process (\d+)", log.read_text())
    return {*map(int, children.split()), *map(int, workers)}


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 130)]
)
async def test_ended_from_outside_it_ends_the_service_and_its_worker(
    here: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "EVOMERGE_DEVICE": "cpu"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DEMO, str(here)),
        stdout=PIPE,
        stderr=PIPE,
        cwd=tmp_path,
        env=clean_environment() | settings,
    )
    running, family = Running(process), set[int]()
    try:
        await running.printed("random, generation")
        family = processes_of(process.pid, tmp_path / demo.DATA_DIR / "service.log")
        assert len(family) == 2
        assert all(map(is_alive, family))
        running.send(number)
        rest = await running.all_ended()
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.wait_for(process.communicate(), PATIENCE)
        survivors = set(filter(is_alive, family))
        for survivor in survivors:
            os.kill(survivor, signal.SIGKILL)
    assert process.returncode == code, rest
    assert not survivors
