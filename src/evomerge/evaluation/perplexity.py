"""Perplexity by domain and over groups of domains, and tables of it (arXiv 2208.03306, section 4).

A domain's loss is nats a token over all of its documents; a group's is the mean of its domains'
losses, each domain counted alike however long it is. Perplexity is exp of either. Intervals are
bootstrapped over documents, within each domain, on the same resamples for all models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.evaluation.errors import InvalidArgumentError
from evomerge.evaluation.intervals import Interval, bootstrap_intervals
from evomerge.evaluation.objective import FloatArray, Objective


@dataclass(frozen=True)
class Perplexity:
    """What one model has on some domains.

    Attributes:
        value: None where there is no domain, or the model broke.
        interval: None where it cannot be told: a domain of a single document.
        domains: how many domains.
    """

    value: float | None
    interval: Interval | None
    domains: int


@dataclass(frozen=True)
class Line:
    """One model in a table.

    Attributes:
        model: what it is called.
        domains: by domain.
        trained, unseen, all: over the domains that the forest was trained on, the others, both.
    """

    model: str
    domains: Mapping[str, Perplexity]
    trained: Perplexity
    unseen: Perplexity
    all: Perplexity


def table(
    losses: Mapping[str, Mapping[str, FloatArray]],
    tokens: Mapping[str, FloatArray],
    trained: Collection[str],
    *,
    seed: int,
) -> list[Line]:
    """The perplexity of each model on each domain and group, a line a model.

    Args:
        losses: by model and domain, nats of each document, (documents,).
        tokens: by domain, of each document, (documents,), at least 1.
        trained: the domains that the forest was trained on.
        seed: of the resampling.

    Raises:
        InvalidArgumentError: a model lacks a domain, or a document has no token.
    """
    domains = list(tokens)
    for model, own in losses.items():
        if set(own) != set(domains):
            raise InvalidArgumentError(model, sorted(own), f"must have the domains {domains}")
    groups: list[list[str]] = [[domain] for domain in domains]
    groups += [
        [domain for domain in domains if domain in trained],
        [domain for domain in domains if domain not in trained],
        domains,
    ]
    columns = [_group(losses, tokens, group, seed) for group in groups]
    return [
        Line(
            model,
            dict(zip(domains, (column[row] for column in columns), strict=False)),
            *(column[row] for column in columns[len(domains) :]),
        )
        for row, model in enumerate(losses)
    ]


@dataclass(frozen=True)
class SweepPoint:
    """One forest of a sweep over the share that its seed has of all training.

    Attributes:
        seed_share: in [0, 1].
        trained, unseen, all: of the model that was followed.
    """

    seed_share: float
    trained: Perplexity
    unseen: Perplexity
    all: Perplexity


def seed_share_sweep(
    tables: Sequence[tuple[float, Sequence[Line]]], model: str
) -> list[SweepPoint]:
    """One model through tables of forests of other seed shares, by rising share.

    Raises:
        InvalidArgumentError: a table has no such model.
    """
    points = []
    for share, lines in sorted(tables, key=lambda one: one[0]):
        found = next((line for line in lines if line.model == model), None)
        if found is None:
            known = [line.model for line in lines]
            raise InvalidArgumentError("model", model, f"is not among {known}")
        points.append(SweepPoint(share, found.trained, found.unseen, found.all))
    return points


def seed_share(seed_tokens: int, own_tokens: Sequence[int]) -> float | None:
    """What of a forest's training is its seed's; None where nobody knows of any."""
    total = seed_tokens + sum(own_tokens)
    return seed_tokens / total if total and seed_tokens else None


def _group(
    losses: Mapping[str, Mapping[str, FloatArray]],
    tokens: Mapping[str, FloatArray],
    domains: Sequence[str],
    seed: int,
) -> list[Perplexity]:
    """Each model on these domains, in order."""
    if not domains:
        return [Perplexity(None, None, 0) for _ in losses]
    weights = np.concatenate([np.asarray(tokens[domain], np.float64) for domain in domains])
    if not weights.size or (weights < 1).any():
        raise InvalidArgumentError("tokens", domains, "must be at least 1 in each document")
    objective = Objective(tuple(len(tokens[domain]) for domain in domains))
    rows = [
        np.concatenate([np.asarray(own[domain], np.float64) for domain in domains]) / weights
        for own in losses.values()
    ]
    means = objective.means(np.stack(rows), weights)
    intervals = bootstrap_intervals(np.stack(rows), weights, objective, seed=seed)
    return [
        Perplexity(_exp(float(mean)), _raised(interval), len(domains))
        for mean, interval in zip(means, intervals, strict=True)
    ]


def _exp(loss: float) -> float | None:
    with np.errstate(over="ignore"):
        value = float(np.exp(loss))
    return value if np.isfinite(value) else None


def _raised(interval: Interval | None) -> Interval | None:
    """The interval of exp of what an interval is of: exp keeps order."""
    if interval is None:
        return None
    low, high = _exp(interval.low), _exp(interval.high)
    return None if low is None or high is None else Interval(low, high, interval.level)
