"""The model card of a merge: markdown for people who find its folder."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.methods import RuleMethod
from evomerge.app.schemas.result import ContenderResult, JobResult, MetricResult
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.proof import WINNER


def model_card(
    spec: MergeJobSpec, inputs: JobInputs, outcome: JobResult, remark: str | None = None
) -> str:
    """Markdown for people who find the folder; `remark` is for those who serve it."""
    name = spec.name or "A merged model"
    weights = [
        f"| {expert.name} | {_numbers(outcome.winner.alpha[expert.name])} "
        f"| {_numbers(outcome.winner.beta[expert.name])} |"
        for expert in inputs.experts
    ]
    proofs = [line for metric in outcome.held_out for line in _proof_lines(metric)]
    lines = [
        *_head(spec, inputs),
        f"# {name}",
        "",
        f"{_what(spec, inputs)}, merged from {len(inputs.experts)} experts by Evo-Merging "
        f"({', '.join(_how(spec))}). manifest.json holds the whole spec and the hashes of every "
        "input.",
        "",
        *([remark, ""] if remark else []),
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


def _head(spec: MergeJobSpec, inputs: JobInputs) -> list[str]:
    """What hubs and libraries read."""
    if spec.makes_checkpoint:
        tags = (
            "merge, evo-merging"
            if inputs.seed is None
            else "merge, branch-train-merge, evo-merging"
        )
        base = [] if inputs.seed is not None else [f"base_model: {inputs.base}"]
        return ["---", *base, "library_name: transformers", f"tags: [{tags}]", "---"]
    if spec.space != "lora":
        return ["---", "tags: [merge, ensemble, evo-merging]", "---"]
    return [
        "---",
        f"base_model: {inputs.base}",
        "library_name: peft",
        "tags: [lora, merge, evo-merging]",
        "---",
    ]


def _what(spec: MergeJobSpec, inputs: JobInputs) -> str:
    if spec.space == "lora" and spec.makes_checkpoint:
        return f"A checkpoint made of {inputs.base} and adapters for it"
    if spec.space == "lora":
        return f"A LoRA adapter for {inputs.base}"
    if inputs.seed is not None and spec.space == "output":
        return f"A mixture, token by token, of the ELMs of forest {inputs.seed.forest}"
    if inputs.seed is not None:
        return f"A checkpoint made of the seed of forest {inputs.seed.forest} and its ELMs"
    if spec.space == "output":
        return "An ensemble of models known by their APIs, fused by their answers"
    return "A merge at its provider"


def _how(spec: MergeJobSpec) -> list[str]:
    composed = spec.space == "lora" and not isinstance(spec.method, RuleMethod)
    composition = [f"composition {spec.composition}"] if composed else []
    return [spec.method.name, *composition, f"seed {spec.seed}"]


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
