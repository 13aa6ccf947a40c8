"""The share of a job's wall time that is not the forward of the base.

Run: python benchmarks/job_overhead.py --base FOLDER --pool FOLDER --data FILE.jsonl

A whole job runs in this process, as a worker runs it, on a SQLite file in a temporary folder:
search, merging, logging, events, proof and artifacts. The forward is what the evaluator measures
around the model itself; loading base and pool, done once a worker and not once a job, is shown
apart. Target: at most 5 % with 10 adapters and 32 examples.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from evomerge import migrations
from evomerge.app.db.engine import Database, SyncDatabase
from evomerge.app.db.models import Job
from evomerge.app.db.repositories import jobs
from evomerge.app.schemas.inputs import DatasetInput, ExpertInput, JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.settings import Settings
from evomerge.app.worker.benches import LoraBenches
from evomerge.app.worker.inputs import Data
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.loop import Worker
from evomerge.app.worker.order import Desk, Order
from evomerge.app.worker.process import rhythm, versions
from evomerge.app.worker.run import MergeRun
from evomerge.app.worker.workbench import Prepared
from evomerge.evaluation import read_examples, to_jsonl
from evomerge.merging.lora.adapter import read_adapter


class Stopwatch:
    """Benches whose making is timed."""

    def __init__(self, benches: LoraBenches) -> None:
        self._benches = benches
        self.loading = 0.0

    async def prepare(self, order: Order, data: Data, desk: Desk) -> Prepared:
        """Load, and remember how long it took."""
        start = time.perf_counter()
        made = await asyncio.to_thread(self._benches.bench, order.spec, order.inputs)
        self.loading = time.perf_counter() - start
        return Prepared(made, data)


def describe(pool: Path, experts: int, data: Path, folder: Path) -> JobInputs:
    """The inputs that the API would have fixed."""
    adapters = sorted(path.parent for path in pool.glob("*/adapter_config.json"))[:experts]
    written = to_jsonl(read_examples(data.read_bytes(), format="jsonl"))
    path = folder / "data.jsonl"
    path.write_bytes(written)
    dataset = DatasetInput(
        id="ds_1",
        name=data.stem,
        path=path,
        content_hash=sha256(written).hexdigest(),
        rows=written.count(b"\n"),
    )
    members = [
        ExpertInput(id=f"ex_{n}", name=a.name, path=a, content_hash=read_adapter(a).content_hash)
        for n, a in enumerate(adapters)
    ]
    return JobInputs(base="base", experts=members, datasets=[dataset])


def describe_job(data: Path, examples: int, evaluations: int) -> MergeJobSpec:
    """A default search over so many examples."""
    return MergeJobSpec.model_validate(
        {
            "pool": "pool",
            "objective": {
                "datasets": [{"dataset": data.stem}],
                "search_examples": examples,
                "held_out_examples": examples,
                "context_tokens": 320,
            },
            "budget": {"evaluations": evaluations},
        }
    )


async def run(
    settings: Settings, spec: MergeJobSpec, inputs: JobInputs
) -> tuple[Job, float, float]:
    """Run one job; its row, its wall time and the part of that spent loading, in seconds."""
    database, heartbeats = Database(settings.url), SyncDatabase(settings.url)
    stopping, watch = asyncio.Event(), Stopwatch(LoraBenches(settings))
    wall = 0.0

    async def timed(ledger: Ledger) -> None:
        nonlocal wall
        start = time.perf_counter()
        await MergeRun(ledger, watch.prepare, settings.data_dir, versions(), stopping).run()
        wall = time.perf_counter() - start
        stopping.set()

    async with database.write() as session:
        job = await jobs.add(
            session,
            name=None,
            spec=spec.model_dump(mode="json"),
            inputs=inputs.model_dump(mode="json"),
            meta={},
        )
    worker = Worker(database, heartbeats, timed, rhythm(settings), stopping, "benchmark")
    await worker.work()
    async with database.read() as session:
        found = await jobs.find(session, job.id)
    await database.dispose()
    heartbeats.dispose()
    if found is None or found.result is None:
        raise SystemExit(f"the job failed: {found and found.error}")
    return found, wall, watch.loading


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the job and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--base", type=Path, required=True, help="folder of the base model")
    parser.add_argument("--pool", type=Path, required=True, help="folder of adapter folders")
    parser.add_argument("--data", type=Path, required=True, help="JSONL file")
    parser.add_argument("--experts", type=int, default=10)
    parser.add_argument("--examples", type=int, default=32)
    parser.add_argument("--evaluations", type=int, default=40)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        settings = Settings(data_dir=folder, bases={"base": given.base.absolute()})
        migrations.upgrade(settings.url)
        inputs = describe(given.pool.absolute(), given.experts, given.data, folder)
        spec = describe_job(given.data, given.examples, given.evaluations)
        job, wall, loading = asyncio.run(run(settings, spec, inputs))
    show(job, len(inputs.experts), wall, loading)


def show(job: Job, experts: int, wall: float, loading: float) -> None:
    """Print what the forward took and what the rest did."""
    usage = (job.result or {})["usage"]
    forward = sum(part["seconds"] for part in usage.values())
    evaluations = sum(part["evaluations"] for part in usage.values())
    tokens = sum(part["tokens"] for part in usage.values())
    working = wall - loading
    rest = working - forward
    print(f"{experts} adapters, {evaluations} evaluations, {tokens} tokens")
    print(f"forward      {forward:8.2f} s  ({tokens / forward:.0f} tokens/s)")
    print(f"all the rest {rest:8.2f} s  ({1e3 * rest / evaluations:.1f} ms an evaluation)")
    print(f"loading      {loading:8.2f} s  (once a worker)")
    print(f"share that is not the forward: {rest / working:.1%} (target: at most 5 %)")


if __name__ == "__main__":
    main()
