"""The perplexity table of a forest, out of what its models have on each domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from evomerge.app.schemas.forest_inputs import ForestInput
from evomerge.app.schemas.forest_jobs import (
    DomainPerplexity,
    EvaluatedDomain,
    EvaluationResult,
    GroupPerplexity,
    ModelPerplexity,
)
from evomerge.app.schemas.forest_specs import EvaluateSpec
from evomerge.app.schemas.result import ResultInterval
from evomerge.evaluation.perplexity import Line, Perplexity, seed_share, table

if TYPE_CHECKING:
    from evomerge.app.worker.forest_scores import DomainScores


def evaluation(
    spec: EvaluateSpec, forest: ForestInput, scores: Sequence[DomainScores], tokens: int
) -> EvaluationResult:
    """The result of an evaluation.

    Args:
        scores: of each domain that was read whole.
        tokens: that models have read.
    """
    trained = {elm.domain for elm in forest.elms}
    by_domain = {one.parts.domain: one for one in scores}
    models = list(scores[0].losses)
    lines = table(
        {model: {name: one.losses[model] for name, one in by_domain.items()} for model in models},
        {name: one.tokens for name, one in by_domain.items()},
        trained,
        seed=spec.seed,
    )
    return EvaluationResult(
        domains=[_domain(one, one.parts.domain in trained) for one in scores],
        models=[_model(line) for line in lines],
        tokens=tokens,
        seed_share=seed_share(forest.seed_tokens, [elm.own_tokens for elm in forest.elms]),
    )


def _domain(one: DomainScores, trained: bool) -> EvaluatedDomain:
    return EvaluatedDomain(
        domain=one.parts.domain,
        trained=trained,
        dev_documents=len(one.parts.dev),
        test_documents=len(one.parts.test),
        test_tokens=int(one.tokens.sum()),
        prior=one.prior,
    )


def _model(line: Line) -> ModelPerplexity:
    return ModelPerplexity(
        model=line.model,
        domains={
            name: DomainPerplexity(perplexity=one.value, interval=_interval(one))
            for name, one in line.domains.items()
        },
        trained=_group(line.trained),
        unseen=_group(line.unseen),
        all=_group(line.all),
    )


def _group(one: Perplexity) -> GroupPerplexity:
    return GroupPerplexity(perplexity=one.value, interval=_interval(one), domains=one.domains)


def _interval(one: Perplexity) -> ResultInterval | None:
    return None if one.interval is None else ResultInterval(**asdict(one.interval))
