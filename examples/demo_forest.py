"""Branch-Train-Merge from a seed to its table: what `make demo-forest` runs.

Starts `evomerge serve` on a free port of this machine and a second worker beside its own, and goes
the whole way over HTTP, on text that Python and its packages carry: a seed on several domains; an
ELM for each, two at a time; one more for a domain that comes later, branched from the weighted
average of the others; one that goes. Beside them a dense model and a forest of a random split, on
equal tokens; and a job that searches the weights of one merged model. Ends with the perplexity of
all of them, on documents that none was trained on, and says what it found, whatever that is.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from examples.demo import DemoError, followed, run, service, wait_until_ready
from examples.forest_table import Row, Rows, rows, tables, verdicts

from evomerge.app.cli.session import Session
from evomerge.app.client import TERMINAL, EvoMergeClient, Json
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.evaluation.corpus import Corpus, Shares
from evomerge.evaluation.corpus import documents as read
from examples import corpora, documents

DATA_DIR = Path(".evomerge") / "demo-forest"
WORKER = [sys.executable, "-m", "evomerge.app.cli", "worker"]
CORPORA = "corpora"
TRAINED = ("python", "headers", "characters", "docstrings")
COMES, GOES = "cython", "characters"
UNSEEN = ("licences", "readmes", "manual")
GROUPS = {"trained": TRAINED, "unseen": UNSEEN, "both": (*TRAINED, *UNSEEN)}
# What the merged model is searched for; no ELM was trained on it.
TARGET = "manual"
FOREST, RANDOM, DENSE, MERGED = "demo", "demo-random", "demo-dense", "demo-merged"

ARCHITECTURE: Json = {
    "vocabulary": 2048,
    "hidden": 128,
    "layers": 4,
    "heads": 4,
    "kv_heads": 4,
    "intermediate": 344,
    "context": 512,
    "tokenizer_bytes": 2 * 2**20,
}
SHARES = {"dev_share": 0.12, "test_share": 0.12}
RECIPE: Json = {
    "block_tokens": 128,
    "batch_blocks": 4,
    "learning_rate": 3e-3,
    "checkpoint_steps": 400,
    "seed": 1,
    **SHARES,
}
SEED_TOKENS, ELM_TOKENS = 307_200, 102_400
CHARACTERS, LONGEST = 600_000, 3_000  # of a domain, of a document
TEST_DOCUMENTS, DEV_DOCUMENTS = 12, 12  # of a domain, at most
EVALUATIONS = 160
ROW = 600  # characters of what the search scores, a third of them as prompt


def environment() -> dict[str, str]:
    """A service of two workers that reads what this demo writes."""
    return {
        "EVOMERGE_DATA_DIR": str(DATA_DIR),
        "EVOMERGE_ROOTS": json.dumps([str(DATA_DIR.absolute())]),
        "EVOMERGE_DEVICE": "cpu",
        # A core each: small models gain little from a second thread.
        "EVOMERGE_THREADS": "1",
    }


@contextmanager
def second_worker(settings: Mapping[str, str], log: Path) -> Iterator[None]:
    """A worker beside the service's own, which ends with the block."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("EVOMERGE_")}
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(
            WORKER,
            env={**inherited, **settings},
            stdin=subprocess.DEVNULL,
            stdout=errors,
            stderr=errors,
            process_group=0,
        ) as worker,
    ):
        try:
            yield
        finally:
            worker.terminate()
            worker.wait()


def training(domain: str) -> Json:
    """A domain as a job names it."""
    return {"domain": domain, "path": str((DATA_DIR / CORPORA / f"{domain}.jsonl").absolute())}


def recipe(tokens: int) -> Json:
    """How all are trained; only for how long differs."""
    return {**RECIPE, "tokens": tokens}


def write_parts(folder: Path) -> list[str]:
    """Deal the documents of all trained domains at random into as many parts, a file each.

    Every domain gives about the same to each, as the domains are about equally large.

    Returns:
        The parts' names.
    """
    names = [f"part-{number}" for number in range(1, len(TRAINED) + 1)]
    dealt: dict[str, list[str]] = {name: [] for name in names}
    generator = random.Random(RECIPE["seed"])
    for domain in TRAINED:
        for document in read(Corpus(domain, folder / f"{domain}.jsonl")):
            dealt[generator.choice(names)].append(document.text)
    for name, texts in dealt.items():
        generator.shuffle(texts)
        documents.write(name, texts, folder)
    return names


def write_rows(folder: Path, target: Path, count: int = 48) -> None:
    """What the search scores: the target's development documents, each cut in two."""
    shares = Shares(dev=SHARES["dev_share"], test=SHARES["test_share"])
    rows = []
    for document in read(Corpus(TARGET, folder / f"{TARGET}.jsonl")):
        text = document.text
        if shares.part(document.digest) == "dev":
            for begin in range(0, len(text) - ROW, ROW):
                cut = begin + ROW // 3
                rows.append({"prompt": text[begin:cut], "completion": text[cut : begin + ROW]})
    lines = [json.dumps(row) + "\n" for row in rows[:count]]
    target.write_text("".join(lines), encoding="utf-8")


async def queued(client: EvoMergeClient, **spec: object) -> str:
    """Queue a job over forests; its id."""
    return str((await client.submit(spec))["id"])


async def ended(client: EvoMergeClient, console: Console, jobs: Sequence[str]) -> list[Json]:
    """The results of jobs, once all of them have succeeded; says each as it ends.

    Raises:
        DemoError: one of them ended otherwise.
    """
    left = list(jobs)
    while left:
        for job in list(left):
            now = await client.job(job)
            if now["status"] not in TERMINAL:
                continue
            if now["status"] != "succeeded":
                raise DemoError(f"job {job} {now['status']}: {now['error']}")
            left.remove(job)
            console.print(f"  {now['name']}: {now['seconds_used']:.0f} s", highlight=False)
        await asyncio.sleep(0.3)
    return [await client.result(job) for job in jobs]


async def grow(client: EvoMergeClient, console: Console) -> str:
    """The seed, its forest, and what that is compared with; the job of the seed.

    Raises:
        DemoError: a job did not succeed.
    """
    console.print(f"A seed of {SEED_TOKENS:,} tokens on {', '.join(TRAINED)}")
    domains = [training(name) for name in TRAINED]
    common = {"type": "train_seed", "corpora": domains, "architecture": ARCHITECTURE}
    seed = await queued(client, **common, recipe=recipe(SEED_TOKENS), forest=FOREST, name="seed")
    await ended(client, console, [seed])
    console.print(f"ELMs of {ELM_TOKENS:,} tokens each, branched from it, two at a time")
    elms = [await branch(client, FOREST, name, "seed") for name in TRAINED]
    await ended(client, console, elms)
    total = SEED_TOKENS + len(TRAINED) * ELM_TOKENS
    console.print(f"A dense model of as many tokens, {total:,}; and ELMs of a random split")
    dense = await queued(client, **common, recipe=recipe(total), name="dense")
    await client.create("forests", {"name": RANDOM, "seed": {"job": seed}})
    parts = [await branch(client, RANDOM, name, "seed") for name in write_parts(DATA_DIR / CORPORA)]
    await ended(client, console, [dense, *parts])
    everything = {"seed": True, "domain": "everything"}
    await client.create("forests", {"name": DENSE, "seed": {"job": dense}, "elms": [everything]})
    return seed


async def branch(client: EvoMergeClient, forest: str, domain: str, start: str) -> str:
    """Queue the training of an ELM on a domain; the job's id."""
    return await queued(
        client,
        type="branch_train",
        forest=forest,
        corpus=training(domain),
        start=start,
        optimizer="reset",
        recipe=recipe(ELM_TOKENS),
        name=f"{forest}:{domain}",
    )


async def evaluation(
    client: EvoMergeClient, forest: str, domains: Sequence[str], **settings: object
) -> str:
    """Queue the evaluation of a forest as it is now; the job's id."""
    return await queued(
        client,
        type="evaluate",
        forest=forest,
        corpora=[training(name) for name in domains],
        shares=SHARES,
        test_documents=TEST_DOCUMENTS,
        prior={"documents": DEV_DOCUMENTS},
        name=f"evaluate:{forest}",
        **settings,
    )


def perplexities(result: Json) -> dict[str, Row]:
    """Of an evaluation, by model and domain."""
    return {
        line["model"]: {name: one["perplexity"] for name, one in line["domains"].items()}
        for line in result["evaluation"]["models"]
    }


def merge_spec() -> MergeJobSpec:
    """The search for the weights of one merged model, good at a domain that no ELM knows."""
    return MergeJobSpec.model_validate(
        {
            "name": "forest-merge",
            "pool": FOREST,
            "space": "checkpoint",
            "objective": {"datasets": [{"dataset": TARGET}], "held_out": 0.3},
            "budget": {"evaluations": EVALUATIONS},
            "seed": 7,
        }
    )


async def measure(
    client: EvoMergeClient, console: Console, seed: str, domains: Sequence[str]
) -> Rows:
    """Evaluate everything, merge, let one domain come and one go, and evaluate that.

    Args:
        seed: the job that trained the forest's seed.
        domains: to evaluate on.

    Raises:
        DemoError: a job did not succeed.
    """
    kinds = {"averages": ["uniform", "posterior"]}
    alone: Json = {"averages": [], "top_k": []}
    jobs = [
        await evaluation(client, FOREST, domains, **kinds),
        await evaluation(client, RANDOM, domains, **alone),
        await evaluation(client, DENSE, domains, **alone),
    ]
    console.print(
        f"A search for the weights of one model, on {TARGET}, which no ELM was trained on"
    )
    await client.register_dataset((DATA_DIR / f"{TARGET}.jsonl").absolute(), name=TARGET)
    merged = (await followed(client, merge_spec(), console))["id"]
    console.print(f"{COMES} comes: an ELM branched from the weighted average of the others")
    jobs.append(await branch(client, FOREST, COMES, "average"))
    *read, came = await ended(client, console, jobs)
    weights = came["training"]["parents"]
    shares = ", ".join(f"{weight:.3f} {name}" for name, weight in weights.items())
    console.print(f"  its first weights: {shares}", highlight=False)
    await client.remove_elm(FOREST, GOES)
    left = [elm["name"] async for elm in client.elms(FOREST)]
    console.print(f"{GOES} goes; the forest is {', '.join(left)}")
    # A forest of the merged model alone, so that it is evaluated as the others are.
    elm = {"path": str((DATA_DIR / "artifacts" / merged).absolute()), "domain": "merged"}
    await client.create("forests", {"name": MERGED, "seed": {"job": seed}, "elms": [elm]})
    last = [
        await evaluation(client, FOREST, domains, **alone),
        await evaluation(client, MERGED, domains, **alone),
    ]
    after, found = await ended(client, console, last)
    return rows(*map(perplexities, [*read, after, found]))


def demo(console: Console) -> None:
    """Run it.

    Raises:
        DemoError, or one of the command line's `REPORTED`.
    """
    shutil.rmtree(DATA_DIR, ignore_errors=True)
    folder = DATA_DIR / CORPORA
    folder.mkdir(parents=True)
    console.print(documents.table(corpora.gather(folder, CHARACTERS, LONGEST).values()))
    write_rows(folder, DATA_DIR / f"{TARGET}.jsonl")
    settings = environment()
    domains = [*TRAINED, COMES, *UNSEEN]
    with (
        service(settings, DATA_DIR / "service.log") as url,
        second_worker(settings, DATA_DIR / "worker.log"),
    ):
        session = Session(url=url, console=console, messages=console)
        console.print(f"The service is at {url}, its log is {DATA_DIR / 'service.log'}")
        session.call(lambda client: wait_until_ready(client, tries=600))
        seed = session.call(lambda client: grow(client, console))
        found = session.call(lambda client: measure(client, console, seed, domains))
    for table in tables(found, domains, GROUPS):
        console.print(table)
    for line in verdicts(found, GROUPS, TARGET):
        console.print(line, highlight=False)


def main() -> int:
    """The exit code: 0 if the whole way could be gone, whatever was found."""
    return run(demo)


if __name__ == "__main__":
    sys.exit(main())
