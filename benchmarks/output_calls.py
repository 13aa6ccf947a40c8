"""How many calls a job in the output space makes, against asking for every candidate.

    python -m benchmarks.output_calls [--experts 10] [--rows 60] [--evaluations 1200]

A counting server on loopback plays all experts; a real service merges them, twice. Prints the calls
of each job as a share of candidates x experts x examples, which is what scoring each candidate
through the experts would take. The aim is at most 1/500 at 1,200 candidates, and none the second
time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from examples.demo import service, wait_until_ready

from evomerge.app.client import EvoMergeClient, Json

OPTIONS = ("red", "green", "blue", "grey")


class Experts:
    """A server whose models answer at random, each in its own way; counts what it is asked."""

    def __init__(self) -> None:
        self.calls = 0
        self.app = FastAPI()
        self.app.post("/v1/chat/completions")(self.answer)

    async def answer(self, request: Request) -> dict[str, Any]:
        """One label, with the log-probabilities of all four."""
        body = await request.json()
        self.calls += 1
        drawn = random.Random(f"{body['model']} {body['messages'][-1]['content']}")
        ranked = sorted(((-drawn.expovariate(1), label) for label in "ABCD"), reverse=True)
        tokens = [{"token": label, "logprob": value, "bytes": None} for value, label in ranked]
        content = [{**tokens[0], "top_logprobs": tokens[: body.get("top_logprobs", 0)]}]
        choice = {
            "message": {"role": "assistant", "content": ranked[0][1]},
            "finish_reason": "stop",
            "logprobs": {"content": content} if body.get("logprobs") else None,
        }
        count = body.get("n", 1)
        choices = [{**choice, "index": number} for number in range(count)]
        return {"choices": choices, "usage": {"prompt_tokens": 40, "completion_tokens": count}}


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The base URL of the application while the block runs."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.should_exit = True
        thread.join()


async def run(service_url: str, experts: Experts, url: str, chosen: argparse.Namespace) -> None:
    """Register, merge twice, and print."""
    async with EvoMergeClient(service_url) as client:
        await wait_until_ready(client)
        names = [f"expert-{number}" for number in range(chosen.experts)]
        for name in names:
            body = {"kind": "api", "name": name, "base_url": url, "model": name}
            await client.create("experts", body)
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            for number in range(chosen.rows):
                row = {"choices": list(OPTIONS), "answer": OPTIONS[number % 4]}
                file.write(json.dumps({"prompt": f"question {number}", **row}) + "\n")
            file.flush()
            await client.upload_dataset(Path(file.name), name="rows")
        spec: Json = {
            "experts": names,
            "space": "output",
            "objective": {"datasets": [{"dataset": "rows"}]},
            "method": {
                "name": "cma",
                "population": 20,
                "scaling": {"evaluations": chosen.evaluations},
            },
        }
        print(f"{chosen.experts} experts, {chosen.rows} examples")
        for turn in ("first job", "the same again"):
            before = experts.calls
            submitted = (await client.submit(spec))["id"]
            async for now in client.watch(submitted):
                ended = now
            if ended["status"] != "succeeded":
                raise SystemExit(f"the job {ended['status']}: {ended['error']}")
            found = await client.result(submitted)
            candidates = found["usage"]["search"]["evaluations"]
            calls = experts.calls - before
            naive = candidates * chosen.experts * chosen.rows
            share = f"1/{naive / calls:,.0f}" if calls else "0"
            print(f"{turn:>15}: {candidates} candidates, {calls} calls, {share} of {naive:,}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experts", type=int, default=10)
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--evaluations", type=int, default=1200)
    chosen = parser.parse_args(arguments)
    experts = Experts()
    with tempfile.TemporaryDirectory() as folder, serving(experts.app) as url:
        settings = {
            "EVOMERGE_DATA_DIR": folder,
            "EVOMERGE_ALLOWED_HOSTS": '["127.0.0.1"]',
            "EVOMERGE_ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        }
        with service(settings, Path(folder) / "service.log") as running:
            asyncio.run(run(running, experts, url, chosen))


if __name__ == "__main__":
    main()
