"""Differences between systems in nats a token, with intervals over documents and seeds.

Two systems read the same documents, so their difference is taken document by document. Its
interval comes from resampling both what it hangs on by chance: the seeds of training, and the
documents within each domain; each resample is used for every system alike (paired bootstrap,
percentile interval).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from evomerge.evaluation.objective import FloatArray

Verdict = Literal["found", "not found", "unclear"]
LEVEL = 0.95
RESAMPLES = 4000


@dataclass(frozen=True)
class Measured:
    """What every system gave to every document.

    Attributes:
        tokens: of each document of a domain, (documents,).
        nats: by system and domain, (seeds, documents), the cross-entropy of whole documents.
    """

    tokens: Mapping[str, FloatArray]
    nats: Mapping[str, Mapping[str, FloatArray]]

    def loss(self, system: str, domains: Sequence[str]) -> float:
        """Nats a token: the mean over domains, each of them the mean over its tokens and seeds."""
        read = self.nats[system]
        each = [read[name].mean(axis=0).sum() / self.tokens[name].sum() for name in domains]
        return float(np.mean(each))

    def perplexity(self, system: str, domains: Sequence[str]) -> float:
        """exp of `loss`: the geometric mean over domains."""
        return float(np.exp(self.loss(system, domains)))


@dataclass(frozen=True)
class Term:
    """A system on some domains, as part of a contrast."""

    factor: float
    system: str
    domains: Sequence[str]


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of losses in nats a token, and its interval."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """Whether it is below zero, beyond chance."""
        return self.below(0.0)

    def below(self, limit: float) -> Verdict:
        """found: it lies below the limit, all of its interval; not found: all of it above."""
        if self.high < limit:
            return "found"
        return "not found" if self.low > limit else "unclear"


def behind(system: str, other: str, domains: Sequence[str]) -> list[Term]:
    """The terms of how far `system` is behind `other`; below zero, it is ahead."""
    return [Term(1.0, system, domains), Term(-1.0, other, domains)]


def contrast(
    measured: Measured, terms: Sequence[Term], *, seed: int = 0, resamples: int = RESAMPLES
) -> Contrast:
    """The sum of the terms' losses times their factors, with its interval."""
    value = sum(term.factor * measured.loss(term.system, term.domains) for term in terms)
    drawn = np.zeros(resamples)
    generator = np.random.default_rng(seed)
    # The same domain is resampled alike in every term; in order, so that a seed says all.
    of_seeds: FloatArray | None = None
    of_documents = {}
    for name in sorted({name for term in terms for name in term.domains}):
        of_documents[name] = _counts(generator, len(measured.tokens[name]), resamples)
    for term in terms:
        for name in term.domains:
            nats = measured.nats[term.system][name]
            if of_seeds is None:
                of_seeds = _counts(generator, len(nats), resamples) / len(nats)
            documents = of_documents[name]
            total = (of_seeds * (documents @ nats.T)).sum(axis=1)
            drawn += term.factor / len(term.domains) * total / (documents @ measured.tokens[name])
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Contrast(float(value), float(low), float(high))


def _counts(generator: np.random.Generator, units: int, resamples: int) -> FloatArray:
    """(resamples, units): how often each unit is drawn, as many draws as there are units."""
    drawn = generator.multinomial(units, np.full(units, 1 / units), size=resamples)
    return drawn.astype(np.float64)
