"""The result of a job over a forest as tables: a training, an average, or perplexities."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.text import Text

from evomerge.app.cli.render import number, table
from evomerge.app.client import Json
from evomerge.app.schemas.forest_jobs import (
    ClusteringResult,
    DomainPerplexity,
    EvaluationResult,
    ForestJobResult,
    GroupPerplexity,
    TrainingResult,
)
from evomerge.app.schemas.result import ResultInterval


def tables(result: Json) -> RenderableType:
    """Everything that a person wants to see of a result, from its JSON.

    Raises:
        pydantic.ValidationError: it is no result of this version.
    """
    found = ForestJobResult.model_validate(result)
    parts: list[RenderableType] = []
    if found.training is not None:
        parts.append(training(found.training))
    if found.average is not None:
        parts.append(weights("weight", found.average.weights))
    if found.clustering is not None:
        parts.append(clusters(found.clustering))
    if found.evaluation is not None:
        parts.append(perplexities(found.evaluation))
    return Group(*parts, Text(footnote(found)))


def training(found: TrainingResult) -> RenderableType:
    """How a training went, a line a domain, and what the ELM began as."""
    made = table("domain", "tokens", "development loss")
    for domain, tokens in found.domain_tokens.items():
        made.add_row(Text(domain), str(tokens), number(found.dev_losses.get(domain)))
    parts = [weights("started as", found.parents)] if found.parents else []
    return Group(made, *parts)


def weights(title: str, found: Mapping[str, float]) -> RenderableType:
    """What each ELM weighs."""
    made = table("ELM", title)
    for name, weight in found.items():
        made.add_row(Text(name), f"{weight:.4g}")
    return made


def clusters(found: ClusteringResult) -> RenderableType:
    """A line a cluster."""
    made = table("cluster", "documents", "train", "development", "test", "bytes")
    for one in found.clusters:
        counts = (one.documents, one.train_documents, one.dev_documents, one.test_documents)
        made.add_row(str(one.cluster), *map(str, counts), str(one.bytes))
    return made


def perplexities(found: EvaluationResult) -> RenderableType:
    """A line a model: over trained and unseen domains and all, then each domain."""
    domains = [one.domain for one in found.domains]
    unseen = {one.domain for one in found.domains if not one.trained}
    shown = [f"{domain} (unseen)" if domain in unseen else domain for domain in domains]
    made = table("model", "all", "95 % interval", "trained", "unseen", *shown)
    made.title = "Perplexity on test documents, lower is better"
    for model in found.models:
        made.add_row(
            Text(model.model),
            _value(model.all),
            _interval(model.all.interval),
            _value(model.trained),
            _value(model.unseen),
            *(_value(model.domains[domain]) for domain in domains),
        )
    return made


def footnote(found: ForestJobResult) -> str:
    """What it took and what it left."""
    ended = f"; ended by the budget of {found.ended_by}" if found.ended_by else ""
    parts = [f"{found.seconds:.0f} s{ended}."]
    if found.training is not None:
        trained = found.training
        steps = f"{trained.steps} of {trained.planned_steps} steps"
        perplexity = number(trained.perplexity, 2)
        parts.insert(0, f"{steps}, {trained.own_tokens} tokens, perplexity {perplexity}.")
    if found.evaluation is not None:
        parts.insert(0, f"{found.evaluation.tokens} tokens read.")
    if found.elm_id is not None:
        parts.append(f"It joined {found.forest_id} as {found.elm_id}.")
    elif found.clustering is not None:
        parts.append(f"Its router is that of {found.forest_id} now.")
    elif found.forest_id is not None:
        parts.append(f"It began {found.forest_id}.")
    return " ".join(parts)


def _value(one: DomainPerplexity | GroupPerplexity) -> str:
    return number(one.perplexity, 2)


def _interval(bounds: ResultInterval | None) -> str:
    return "-" if bounds is None else f"[{bounds.low:.2f}, {bounds.high:.2f}]"
