"""Experts known by their API alone, merged by their answers: what `make demo-api` runs.

Starts `evomerge serve` on a free port of this machine with some of this folder's adapters as
models that can be called, registers each of them back as an API expert, submits
examples/job-api.yaml over HTTP, and asks the merged model a question with OpenAI's own client. It
says whether the merged model beats the best single expert on examples that the search never saw.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from openai import OpenAI
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from examples.base import BASE_NAME, ensure_base
from examples.demo import HERE, environment, followed, run, service, wait_until_ready

from evomerge.app.cli import jobfile, result
from evomerge.app.cli.session import Session
from evomerge.app.client import EvoMergeClient, Json
from evomerge.app.schemas.result import JobResult, MetricResult
from evomerge.app.schemas.spec import MergeJobSpec

JOB = HERE / "job-api.yaml"
DATA_DIR = Path(".evomerge") / "demo-api"
# Relatives by the question (currencies), by the language (Spanish), and by hardly anything.
EXPERTS = ("currency-pt", "country-es", "language-es", "language-pt")
QUESTION = "Currency: Danish Krone\nSpanish:"
OPTIONS = ("corona danesa", "coroa dinamarquesa", "corona danese", "corona sueca")
# The p value below which a difference is no chance.
SURE = 0.05
# What an estimate must foresee of a job's spending.
ESTIMATED = ("requests", "input_tokens", "output_tokens")


def settings(base: Path) -> dict[str, str]:
    """A service that serves its adapters one by one, and may call models on this machine."""
    return {
        **environment(base),
        "EVOMERGE_DATA_DIR": str(DATA_DIR),
        "EVOMERGE_SERVE_EXPERTS": "true",
        "EVOMERGE_ALLOWED_HOSTS": '["127.0.0.1"]',
        "EVOMERGE_ALLOWED_NETWORKS": '["127.0.0.0/8"]',
    }


async def register(client: EvoMergeClient, spec: MergeJobSpec, url: str, console: Console) -> None:
    """The adapters, each once more as a model behind an API, a pool of those, and the dataset."""
    await wait_until_ready(client)
    for name in EXPERTS:
        await client.register_expert(HERE / "pool" / name, name=name, base=BASE_NAME)
    for name in EXPERTS:
        body = {"kind": "api", "name": f"{name}-api", "base_url": f"{url}/v1", "model": name}
        # They were trained on bare prompts, which a chat would put into a template.
        body["interface"] = "completions"
        found = (await client.create("experts", body))["info"]["capabilities"]
        console.print(
            f"{name}-api: answers by {found['interface']}, "
            f"log-probabilities of prompts: {'yes' if found['prompt_logprobs'] else 'no'}"
        )
    members = [f"{name}-api" for name in EXPERTS]
    await client.create("pools", {"name": spec.pool, "experts": members})
    for part in spec.objective.datasets:
        file = HERE / "data" / f"{part.dataset}.jsonl"
        await client.register_dataset(file, name=part.dataset)


def foreseen_and_spent(estimate: Json, found: JobResult) -> str:
    """What the dry run said beside what the job then spent."""
    calls = found.calls.values()
    parts = [
        f"{name.replace('_', ' ')} {estimate[name]} foreseen, "
        f"{sum(getattr(one, name) for one in calls)} spent"
        for name in ESTIMATED
    ]
    return "; ".join(parts)


def ask(url: str, model: str, console: Console) -> None:
    """Put a question to the merged model with OpenAI's client."""
    with OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        answer = client.completions.create(
            model=model, prompt=QUESTION, extra_body={"choices": list(OPTIONS)}
        )
    console.print(f"\nAsked of {model!r}: {QUESTION!r}, one of {list(OPTIONS)}", highlight=False)
    console.print(f"It answers: {answer.choices[0].text.strip()!r}", highlight=False)
    console.print(f"Out of: {(answer.model_extra or {}).get('evomerge')}", highlight=False)


def verdict(metric: MetricResult) -> str:
    """Whether the merged model beats the best single expert under a metric, and how surely."""
    rows = {contender.name: contender for contender in metric.contenders}
    winner, best = rows["winner"], rows["best_expert"]
    ahead = winner.loss is not None and best.loss is not None and winner.loss < best.loss
    numbers = [one.loss if one.score is None else one.score for one in (winner, best)]
    shown = " against ".join("none" if one is None else f"{one:.3f}" for one in numbers)
    surely = best.p_value is not None and best.p_value < SURE
    verb = "does NOT beat"
    if ahead:
        verb = "beats" if surely else "is ahead of, but not beyond chance,"
    sure = "" if best.p_value is None else f", p = {best.p_value:.2g}"
    return (
        f"{metric.metric} on held-out data: the merged model {verb} "
        f"the best single expert, {best.expert}: {shown}{sure}."
    )


def demo(console: Console) -> None:
    """Run it.

    Raises:
        DemoError, BaseModelError, or one of the command line's `REPORTED`.
    """
    base = ensure_base(say=console.print)
    shutil.rmtree(DATA_DIR, ignore_errors=True)
    DATA_DIR.mkdir(parents=True)
    spec = jobfile.load(JOB)
    with service(settings(base), DATA_DIR / "service.log") as url:
        session = Session(url=url, console=console, messages=console)
        console.print(f"The service is at {url}, its log is {DATA_DIR / 'service.log'}")
        session.call(lambda client: register(client, spec, url, console))
        estimate = session.call(lambda client: client.estimate(spec))
        job = session.call(lambda client: followed(client, spec, console))["id"]
        found = session.call(lambda client: client.result(job))
        console.print(result.tables(found))
        outcome = JobResult.model_validate(found)
        console.print(f"Dry run: {foreseen_and_spent(estimate, outcome)}.", highlight=False)
        ask(url, spec.serve_as or job, console)
    for metric in outcome.held_out:
        console.print(verdict(metric), style="bold", highlight=False)


def main() -> int:
    """The exit code: 0 if the whole way could be gone, whatever the verdict."""
    return run(demo)


if __name__ == "__main__":
    sys.exit(main())
