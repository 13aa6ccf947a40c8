"""A job's result and its manifest, out of what search and proof found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.result import (
    CallsResult,
    ContenderResult,
    GenerationResult,
    JobResult,
    MetricResult,
    ResultInterval,
    UsageResult,
    WinnerResult,
)
from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.worker.proof import Proof
from evomerge.app.worker.search import Found
from evomerge.app.worker.workbench import Prepared
from evomerge.evaluation import Contender, Interval, Report
from evomerge.optimizers import FloatArray

UNSEEN = (
    "The examples are the provider's own and are not seen here: nothing was held out, and the "
    "search loss is all that is known. Datasets of the provider's in remote.held_out are a proof."
)
# What changes from one run of the same spec to the next, and so has no place in the manifest.
_VOLATILE = {"usage", "calls", "seconds", "artifacts"}


def result(
    spec: MergeJobSpec,
    inputs: JobInputs,
    found: Found,
    proof: Proof,
    ready: Prepared,
    *,
    unproven: str | None,
    seconds: float,
    versions: Mapping[str, str],
) -> JobResult:
    """The outcome, with no artifacts yet; `unproven` says why there is no proof."""
    best_expert = None if found.best_expert is None else inputs.experts[found.best_expert].name
    base_hash = ready.bench.base_hash
    return JobResult(
        winner=_winner(found, [expert.name for expert in inputs.experts]),
        held_out=[
            _metric(metric, report, [d.name for d in inputs.datasets], best_expert)
            for metric, report in proof.reports.items()
        ],
        generations=[GenerationResult(**asdict(row)) for row in found.generations],
        search_examples=len(ready.data.search.examples),
        held_out_examples=len(ready.data.held_out.examples),
        unproven=unproven,
        ended_by=ready.ended_by or found.ended_by,
        left_out=dict(ready.left_out),
        usage=_usage(found, proof, ready),
        calls={model: CallsResult(**asdict(cost)) for model, cost in ready.calls.items()},
        seconds=seconds,
        seed=spec.seed,
        versions=dict(versions),
        hashes={
            **({} if base_hash is None else {"base": base_hash}),
            "experts": {expert.name: expert.content_hash for expert in inputs.experts},
            "datasets": {dataset.name: dataset.content_hash for dataset in inputs.datasets},
        },
        artifacts=[],
    )


def manifest(
    job_id: str, spec: MergeJobSpec, inputs: JobInputs, outcome: JobResult
) -> dict[str, Any]:
    """What the merged model was made of. The same job makes the same manifest, to the byte."""
    return {
        "job": job_id,
        "spec": spec.model_dump(mode="json"),
        "base": inputs.base,
        **({} if inputs.seed is None else {"forest": inputs.seed.forest}),
        **outcome.model_dump(mode="json", exclude=_VOLATILE),
    }


def _usage(found: Found, proof: Proof, ready: Prepared) -> dict[str, UsageResult]:
    used = {
        "search": UsageResult(
            evaluations=found.evaluations, tokens=found.tokens, seconds=found.seconds
        ),
        "held_out": UsageResult(
            evaluations=proof.evaluations, tokens=proof.tokens, seconds=proof.seconds
        ),
    }
    read = ready.reading
    if read is not None:
        used["reading"] = UsageResult(evaluations=0, tokens=read.tokens, seconds=read.seconds)
    return used


def _winner(found: Found, names: Sequence[str]) -> WinnerResult:
    best = found.best
    return WinnerResult(
        stage=best.stage,
        generation=best.generation,
        index=best.index,
        search_loss=best.loss,
        alpha=_by_name(names, best.candidate.alpha),
        beta=_by_name(names, best.candidate.beta),
    )


def _by_name(names: Sequence[str], values: FloatArray) -> dict[str, list[float]]:
    return {name: values[:, column].tolist() for column, name in enumerate(names)}


def _metric(
    metric: Metric, report: Report, datasets: Sequence[str], best_expert: str | None
) -> MetricResult:
    return MetricResult(
        metric=metric,
        examples=report.examples,
        contenders=[
            _contender(metric, contender, datasets, best_expert) for contender in report.contenders
        ],
    )


def _contender(
    metric: Metric, contender: Contender, datasets: Sequence[str], best_expert: str | None
) -> ContenderResult:
    return ContenderResult(
        name=contender.name,
        expert=best_expert if contender.name == "best_expert" else None,
        loss=contender.mean,
        score=_score(metric, contender.mean),
        interval=_interval(contender.interval),
        dataset_losses=dict(zip(datasets, contender.dataset_means, strict=True)),
        difference=contender.difference,
        difference_interval=_interval(contender.difference_interval),
        p_value=contender.p_value,
    )


def _score(metric: Metric, loss: float | None) -> float | None:
    if metric == "cross_entropy" or loss is None:
        return None
    # A mean of ones may round to a hair above one; no score is negative.
    return max(0.0, 1 - loss)


def _interval(interval: Interval | None) -> ResultInterval | None:
    return None if interval is None else ResultInterval(**asdict(interval))
