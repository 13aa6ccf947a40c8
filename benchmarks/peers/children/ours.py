"""Our own search, as anybody would run it: the service, a worker, one merge job over HTTP.

What it takes counts against us in full: the API, the database, the proof on rows of its own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from examples.demo import service, wait_until_ready
from shared import read_task, write_report

from evomerge.app.client import EvoMergeClient, Json


def method(task: Any) -> dict[str, Any]:
    """The search, with the budget cut as the preset cuts its own."""
    budget, experts = task.budget, len(task.experts)
    common = {"name": "evo-merging", "preset": task.options["preset"]}
    if task.options["preset"] == "paper":
        stages = {"denoising": budget // 3, "scaling": budget - budget // 3}
        common["population"] = task.population
    else:
        # The experts alone are scored first, and count.
        left = max(4, budget - experts)
        stages = {"denoising": left // 4, "scaling": left - left // 4}
    return {**common, **{stage: {"evaluations": count} for stage, count in stages.items()}}


def spec(task: Any) -> dict[str, Any]:
    """The job; its split gives the very rows that every peer searches on."""
    return {
        "name": "peers",
        "pool": "experts",
        "objective": {"datasets": [{"dataset": "rows"}], "held_out": task.proof_share},
        "method": method(task),
        "budget": {"evaluations": task.budget},
        "seed": task.seed,
    }


async def merge(client: EvoMergeClient, task: Any, rows: Path) -> Json:
    """Register, submit, follow; the job as it ended."""
    await wait_until_ready(client)
    ids = []
    for name, folder in task.experts.items():
        expert = await client.register_expert(folder, name=name, base="base")
        ids.append(expert["id"])
    await client.create("pools", {"name": "experts", "experts": ids})
    await client.register_dataset(rows, name="rows")
    last = await client.submit(spec(task))
    async for job in client.watch(last["id"], every=0.1):
        last = job
    if last["status"] != "succeeded":
        raise SystemExit(f"job {last['status']}: {last.get('error')}")
    return last


async def run(url: str, task: Any, rows: Path) -> tuple[Json, Json]:
    """The job and its result."""
    async with EvoMergeClient(url) as client:
        job = await merge(client, task, rows)
        return job, await client.result(job["id"])


def main() -> None:
    task = read_task()
    rows = task.folder / "rows.jsonl"
    lines = [{"prompt": r.prompt, "completion": r.completion} for r in task.search + task.proof]
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    data = task.folder / "service"
    data.mkdir()
    roots = {task.folder, *(folder.parent for folder in task.experts.values())}
    settings = {
        "EVOMERGE_BASES": json.dumps({"base": str(task.base)}),
        "EVOMERGE_ROOTS": json.dumps(sorted(map(str, roots))),
        "EVOMERGE_DATA_DIR": str(data),
    }
    with service(settings, task.folder / "service.log") as url:
        job, result = asyncio.run(run(url, task, rows))
    searched = result["search_examples"]
    if searched != len(task.search):
        raise SystemExit(f"the job searched on {searched} rows, the peers on {len(task.search)}")
    model = task.folder / "model"
    shutil.copytree(data / "artifacts" / job["id"], model)
    write_report(
        task,
        model,
        "adapter",
        evaluations=result["usage"]["search"]["evaluations"],
        search_loss=result["winner"]["search_loss"],
        search_seconds=result["seconds"],
        packages=["evo-merging", "torch", "transformers"],
        note=f"its seconds include loading and a proof on rows of its own; scoring alone took "
        f"{result['usage']['search']['seconds']:.2f} s",
    )


if __name__ == "__main__":
    main()
