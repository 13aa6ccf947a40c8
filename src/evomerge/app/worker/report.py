"""A job's result, its manifest and its model card, out of what search and proof found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.result import (
    ContenderResult,
    GenerationResult,
    JobResult,
    MetricResult,
    ResultInterval,
    UsageResult,
    WinnerResult,
)
from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.worker.proof import WINNER, Proof
from evomerge.app.worker.search import Found
from evomerge.evaluation import Contender, Interval, Report
from evomerge.optimizers import FloatArray

# What changes from one run of the same spec to the next, and so has no place in the manifest.
_VOLATILE = {"usage", "seconds", "artifacts"}


def result(
    spec: MergeJobSpec,
    inputs: JobInputs,
    found: Found,
    proof: Proof,
    *,
    search_examples: int,
    held_out_examples: int,
    seconds: float,
    versions: Mapping[str, str],
    base_hash: str,
) -> JobResult:
    """The outcome, with no artifacts yet."""
    best_expert = None if found.best_expert is None else inputs.experts[found.best_expert].name
    return JobResult(
        winner=_winner(found, [expert.name for expert in inputs.experts]),
        held_out=[
            _metric(metric, report, [d.name for d in inputs.datasets], best_expert)
            for metric, report in proof.reports.items()
        ],
        generations=[GenerationResult(**asdict(row)) for row in found.generations],
        search_examples=search_examples,
        held_out_examples=held_out_examples,
        ended_by=found.ended_by,
        usage={
            "search": UsageResult(
                evaluations=found.evaluations, tokens=found.tokens, seconds=found.seconds
            ),
            "held_out": UsageResult(
                evaluations=proof.evaluations, tokens=proof.tokens, seconds=proof.seconds
            ),
        },
        seconds=seconds,
        seed=spec.seed,
        versions=dict(versions),
        hashes={
            "base": base_hash,
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
        **outcome.model_dump(mode="json", exclude=_VOLATILE),
    }


def model_card(spec: MergeJobSpec, inputs: JobInputs, outcome: JobResult) -> str:
    """Markdown for people who find the folder."""
    name = spec.name or "A merged model"
    weights = [
        f"| {expert.name} | {_numbers(outcome.winner.alpha[expert.name])} "
        f"| {_numbers(outcome.winner.beta[expert.name])} |"
        for expert in inputs.experts
    ]
    proofs = [line for metric in outcome.held_out for line in _proof_lines(metric)]
    lines = [
        "---",
        f"base_model: {inputs.base}",
        "library_name: peft",
        "tags: [lora, merge, evo-merging]",
        "---",
        f"# {name}",
        "",
        f"A LoRA adapter for {inputs.base}, merged from {len(inputs.experts)} experts by "
        f"Evo-Merging ({spec.method.name}, composition {spec.composition}, seed {spec.seed}). "
        "manifest.json holds the whole spec and the hashes of every input.",
        "",
        "## Proof on held-out data",
        "Mean losses, lower is better, with 95 % bootstrap intervals; the difference is the "
        "contender's loss less the winner's.",
        *proofs,
        "",
        "## What it is made of",
        "| expert | alpha (kept) | beta (weight) |",
        "|---|---|---|",
        *weights,
        "",
    ]
    return "\n".join(lines)


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


def _proof_lines(metric: MetricResult) -> list[str]:
    return [
        "",
        f"{metric.metric}, {metric.examples} examples:",
        "",
        "| model | loss | interval | difference | p |",
        "|---|---|---|---|---|",
        *(_proof_line(contender) for contender in metric.contenders),
    ]


def _proof_line(contender: ContenderResult) -> str:
    name = contender.name if contender.expert is None else f"{contender.name} ({contender.expert})"
    interval = contender.interval
    shown = "" if interval is None else f"{interval.low:.4g} to {interval.high:.4g}"
    difference = "" if contender.name == WINNER else _number(contender.difference)
    return (
        f"| {name} | {_number(contender.loss)} | {shown} | {difference} "
        f"| {_number(contender.p_value)} |"
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
