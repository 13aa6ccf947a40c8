"""The README's session on the command line, against a real server, worker and (tiny) model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from peft import PeftModel
from tests.support.processes import Running, evomerge
from tests.support.tiny import make_adapter, make_base
from transformers import AutoModelForCausalLM

JOB = """
name: film
pool: relatives
objective: {datasets: [{dataset: film}], report: [exact_match], max_new_tokens: 4}
method:
  name: evo-merging
  population: 4
  scaling: {evaluations: 8}
  denoising: {evaluations: 8}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, three adapters, a dataset and a job file."""
    folder = tmp_path_factory.mktemp("session")
    base = make_base(folder / "base")
    for seed, name in enumerate(("music", "books", "weather")):
        make_adapter(folder / "adapters" / name, base, seed)
    rows = [{"prompt": f"film {number}?", "completion": f"no. {number}"} for number in range(12)]
    (folder / "film.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "job.yaml").write_text(JOB)
    return folder


def service(folder: Path) -> Mapping[str, str]:
    return {
        "EVOMERGE_DATA_DIR": str(folder / "data"),
        "EVOMERGE_BASES": json.dumps({"tiny": str(folder / "base")}),
        "EVOMERGE_ROOTS": json.dumps([str(folder)]),
    }


async def done(url: str, *arguments: str) -> str:
    """What a command that succeeds prints."""
    async with evomerge(*arguments, environment={"EVOMERGE_URL": url}) as running:
        return await output(running)


async def output(running: Running) -> str:
    out, log = await running.process.communicate()
    assert running.process.returncode == 0, log.decode()
    return out.decode()


async def test_a_pool_goes_in_and_a_merged_adapter_with_proof_comes_out(folder: Path) -> None:
    async with evomerge("serve", "--port", "0", environment=service(folder)) as serving:
        url = (await serving.printed(r"is at (http://\S+) "))[1]
        await done(url, "pools", "add", "relatives", "--folders", f"{folder}/adapters/*")
        await done(url, "datasets", "add", str(folder / "film.jsonl"))
        result = json.loads(await done(url, "run", str(folder / "job.yaml"), "--json"))
        await done(url, "download", result["merge_job_id"], str(folder / "merged"))
        table = await done(url, "result", result["merge_job_id"])
    names = [contender["name"] for contender in result["held_out"][0]["contenders"]]
    assert names == ["winner", "base", "best_expert", "uniform"]
    assert set(result["winner"]["beta"]) == {"music", "books", "weather"}
    assert all(name in table for name in [*names, "exact_match"])
    base = AutoModelForCausalLM.from_pretrained(folder / "base")
    assert PeftModel.from_pretrained(base, folder / "merged").peft_config
