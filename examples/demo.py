"""The whole service on a real language model: what `make demo` runs.

Starts `evomerge serve` on a free port of this machine, registers the ten experts and the dataset
of this folder, and submits examples/job.yaml over HTTP. Ends with an error unless the merged
model beats both the base and the uniform average on examples that the search never saw.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from examples.base import BASE_NAME, BaseModelError, ensure_base

from evomerge.app.cli import jobfile, result
from evomerge.app.cli.failures import REPORTED, exit_code, lines
from evomerge.app.cli.progress import JobProgress
from evomerge.app.cli.run import ending
from evomerge.app.cli.session import Session
from evomerge.app.client import EvoMergeClient, Json
from evomerge.app.schemas.result import JobResult
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.connectors.http import StatusError

HERE = Path(__file__).resolve().parent
JOB = HERE / "job.yaml"
DATA_DIR = Path(".evomerge") / "demo"
POOL = "example-pool"
BEATEN = ("base", "uniform")


class DemoError(Exception):
    """The demo cannot go on, or did not show what it should."""


def environment(base: Path) -> dict[str, str]:
    """What the service must be told: its base model, and the folder that it may read."""
    return {
        "EVOMERGE_BASES": json.dumps({BASE_NAME: str(base)}),
        "EVOMERGE_ROOTS": json.dumps([str(HERE)]),
        "EVOMERGE_DATA_DIR": str(DATA_DIR),
    }


def serve_command(port: int) -> list[str]:
    """The service on this machine's loopback; port 0 is any free one."""
    return [sys.executable, "-m", "evomerge.app.cli", "serve", "--port", str(port)]


@contextmanager
def service(settings: Mapping[str, str], log: Path) -> Iterator[str]:
    """The address of a running service, which ends with the block.

    Raises:
        DemoError: it did not start.
    """
    # Without settings of another service, which may lie in the environment.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("EVOMERGE_")}
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            serve_command(0),
            env={**inherited, **settings},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # Its own group, so that a Ctrl-C reaches this program first, which then ends it.
            process_group=0,
        ) as server,
    ):
        try:
            yield announced_address(server, log)
        finally:
            server.terminate()
            # On a Ctrl-C, Popen's own end would hardly wait, and leave the service behind.
            server.wait()


def announced_address(server: subprocess.Popen[str], log: Path) -> str:
    """The address that the service prints before it starts."""
    line = server.stdout.readline() if server.stdout else ""
    found = re.search(r"http://[^\s/]+", line)
    if found is None:
        raise DemoError(f"the service did not start: see {log}")
    return found.group()


async def wait_until_ready(client: EvoMergeClient, tries: int = 120) -> None:
    """Return when /readyz says yes.

    Raises:
        DemoError: it did not within half a second times `tries`.
    """
    for _ in range(tries):
        try:
            if await client.ready():
                return
        except StatusError as error:
            if error.status < 500:
                raise
        await asyncio.sleep(0.5)
    raise DemoError("the service does not become ready")


async def merge(client: EvoMergeClient, console: Console) -> Json:
    """Register what the job needs, submit it, follow it, and return it as it ended.

    Raises:
        DemoError: it ended without a merged model.
    """
    spec = jobfile.load(JOB)
    await wait_until_ready(client)
    folders = str(HERE / "pool" / "*")
    await client.create("pools", {"name": POOL, "base": BASE_NAME, "folders": folders})
    for part in spec.objective.datasets:
        file = HERE / "data" / f"{part.dataset}.jsonl"
        await client.register_dataset(file, name=part.dataset)
    return await followed(client, spec, console)


async def followed(client: EvoMergeClient, spec: MergeJobSpec, console: Console) -> Json:
    """Submit a job, show how it goes, and return it as it ended.

    Raises:
        DemoError: it ended without a merged model.
    """
    submitted = (await client.submit(spec))["id"]
    with JobProgress(console) as progress:
        async for job in client.watch(submitted):
            progress.show(job)
    if job["status"] != "succeeded":
        raise DemoError(ending(job))
    return job


def check_proof(found: JobResult) -> None:
    """Hold the winner to what a merge is for.

    Raises:
        DemoError: on held-out data it is no better than the base or the uniform average.
    """
    losses = {contender.name: contender.loss for contender in found.held_out[0].contenders}
    winner = losses["winner"]
    for name in BEATEN:
        other = losses[name]
        if winner is None or (other is not None and winner >= other):
            raise DemoError(f"held-out loss: winner {winner} does not beat {name} {other}")


def demo(console: Console) -> None:
    """Run it.

    Raises:
        DemoError, BaseModelError, or one of the command line's `REPORTED`.
    """
    base = ensure_base(say=console.print)
    shutil.rmtree(DATA_DIR, ignore_errors=True)
    DATA_DIR.mkdir(parents=True)
    settings = environment(base)
    with service(settings, DATA_DIR / "service.log") as url:
        session = Session(url=url, console=console, messages=console)
        console.print(f"The service is at {url}, its log is {DATA_DIR / 'service.log'}")
        job = session.call(lambda client: merge(client, console))["id"]
        found = session.call(lambda client: client.result(job))
        console.print(result.tables(found))
    console.print(afterwards(settings, job), soft_wrap=True, highlight=False, markup=False)
    check_proof(JobResult.model_validate(found))
    console.print(f"The winner beats {' and '.join(BEATEN)} on held-out data.", style="bold green")


def afterwards(settings: Mapping[str, str], job: str, port: int = 8000) -> str:
    """Where the merged adapter is, how to start the service again, and where to look then."""
    assigned = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return (
        f"\nThe merged adapter: {(DATA_DIR / 'artifacts' / job).absolute()}\n\n"
        "The service has ended. This starts it again with all that is in it:\n"
        f"  {' '.join([*assigned, shlex.join(serve_command(port))])}\n"
        f"The API: http://127.0.0.1:{port}/docs\n"
        f"The job: http://127.0.0.1:{port}/v1/merge_jobs/{job}\n"
    )


def main() -> int:
    """The exit code: 0 only if the merge was worth it."""
    return run(demo)


def run(show: Callable[[Console], None]) -> int:
    """Show a demo; the exit code, with what went wrong in words."""
    console = Console()
    # Ended from outside, it must still end the service that it started.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        show(console)
    except (DemoError, BaseModelError) as error:
        console.print(f"error: {error}", style="red")
        return 1
    except REPORTED as error:
        for line in lines(error):
            console.print(f"error: {line}", style="red")
        return exit_code(error)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
