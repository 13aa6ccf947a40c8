"""A real llama.cpp server, three prompts over it as three experts, one merge of their answers.

    pip install 'llama-cpp-python[server]'     # builds for half an hour; not in this environment
    python -m llama_cpp.server --model SmolLM2-135M-Instruct.Q4_1.gguf --logits_all true --port 8911
    python -m benchmarks.llama_cpp_prompts --url http://127.0.0.1:8911/v1

Starts the service on a free port, registers the three prompts as API experts over the server's one
model, merges them on a choice dataset by the log-probabilities of the options' labels, and prints
what the probe found, the calls, and the result. A second job over the same data asks nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from examples.demo import HERE, service, wait_until_ready

from evomerge.app.cli import result
from evomerge.app.client import EvoMergeClient, Json
from evomerge.app.schemas.result import JobResult

DATA = HERE / "data" / "currency-es-choice.jsonl"
PROMPTS = {
    "plain": {},
    "translator": {"system": "You translate names of currencies into Spanish."},
    "examiner": {
        "system": "You answer multiple-choice questions with one letter.",
        "template": "Which option is the Spanish name?\n{prompt}",
    },
}


def spec(rows: int) -> Json:
    """The merge job."""
    return {
        "experts": list(PROMPTS),
        "space": "output",
        "objective": {
            "datasets": [{"dataset": DATA.stem}],
            "report": ["choice_accuracy"],
            "search_examples": rows // 2,
            "held_out_examples": rows // 2,
        },
        "method": {"name": "evo-merging", "scaling": {"evaluations": 400}},
    }


async def run(service_url: str, url: str, model: str, rows: int, console: Console) -> None:
    """Register, merge twice, and print."""
    async with EvoMergeClient(service_url) as client:
        await wait_until_ready(client)
        for name, prompt in PROMPTS.items():
            body = {"kind": "api", "name": name, "base_url": url, "model": model, **prompt}
            added = await client.create("experts", body)
        console.print("The probe found:", json.dumps(added["info"]["capabilities"], indent=1))
        await client.upload_dataset(DATA)
        console.print("Foreseen:", _calls(await client.estimate(spec(rows))))
        for turn in ("first", "second"):
            found = await _merged(client, spec(rows))
            calls = JobResult.model_validate(found).calls.values()
            console.print(f"The {turn} job made {sum(one.requests for one in calls)} requests")
        console.print(result.tables(found))


def _calls(estimate: Json) -> dict[str, Any]:
    return {name: estimate[name] for name in ("requests", "input_tokens", "output_tokens")}


async def _merged(client: EvoMergeClient, job: Json) -> Json:
    submitted = (await client.submit(job))["id"]
    async for now in client.watch(submitted):
        ended = now
    if ended["status"] != "succeeded":
        raise SystemExit(f"the job {ended['status']}: {ended['error']}")
    return await client.result(submitted)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="base URL of the server, with /v1")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, default=100)
    chosen = parser.parse_args(arguments)
    console = Console(width=90, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "EVOMERGE_DATA_DIR": folder,
            "EVOMERGE_ALLOWED_HOSTS": '["127.0.0.1"]',
            "EVOMERGE_ALLOWED_NETWORKS": '["127.0.0.0/8"]',
            # One model on a few cores: more at once would only wait there.
            "EVOMERGE_ENDPOINT_LIMITS": '{"*": {"concurrency": 2}}',
        }
        with service(settings, Path(folder) / "service.log") as running:
            asyncio.run(run(running, chosen.url, chosen.model, chosen.rows, console))


if __name__ == "__main__":
    main()
