"""The paper's claims as differences between systems, and what was found of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.btm.contrasts import (
    RESAMPLES,
    Contrast,
    Measured,
    Term,
    Verdict,
    behind,
    contrast,
)
from benchmarks.btm.names import (
    RANDOM,
    dense,
    ensemble,
    ensemble_of,
    posterior_average,
    uniform_average,
)
from benchmarks.btm.plan import FEWER, SHARE, SHARES, Settings

# Nats a token that count as nothing: one percent of perplexity.
NOTHING = math.log(1.01)


@dataclass(frozen=True)
class Claim:
    """A direction that the paper reports.

    Attributes:
        letter: under which the measurement knows it.
        text: the direction, in words.
        terms: a contrast that lies below the limit if it holds.
        limit: nats a token.
    """

    letter: str
    text: str
    terms: Sequence[Term]
    limit: float = 0.0


@dataclass(frozen=True)
class Finding:
    """What was found of a claim."""

    claim: Claim
    contrast: Contrast

    @property
    def verdict(self) -> Verdict:
        """found, not found, or unclear."""
        return self.contrast.below(self.claim.limit)


def claims(settings: Settings) -> Iterator[Claim]:
    """All of them, in the order of their letters."""
    places = {"trained domains": settings.domains, "unseen domains": settings.unseen}
    for where, domains in places.items():
        ahead = behind(ensemble(), dense(), domains)
        yield Claim("a", f"the domain ensemble is ahead of the dense model, {where}", ahead)
    for where, domains in places.items():
        ahead = behind(ensemble(), RANDOM, domains)
        yield Claim("b", f"the domain ensemble is ahead of the random-split one, {where}", ahead)
    for where, domains in places.items():
        ahead = behind(posterior_average(), uniform_average(), domains)
        yield Claim("c", f"the posterior average is ahead of the uniform one, {where}", ahead)
    for where, domains in places.items():
        ahead = behind(posterior_average(), dense(), domains)
        yield Claim("c", f"the posterior average is ahead of the dense model, {where}", ahead)
    yield from _shares(settings)
    without, having = uniform_average(0.0), uniform_average(SHARE)
    apart = behind(having, without, settings.domains)
    # Collapsed: farther from what a shared seed gives than a factor of ten in perplexity.
    yield Claim("e", "without a shared seed the average collapses", apart, -math.log(10))
    yield from _experts(settings)
    yield from _domains(settings)


def _shares(settings: Settings) -> Iterator[Claim]:
    """Half of the compute for the seed is best, and it hardly matters between 20 and 80 %."""
    for kind, system in (("ensemble", ensemble), ("posterior average", posterior_average)):
        for share in SHARES:
            if share != SHARE:
                ahead = behind(system(SHARE), system(share), settings.domains)
                text = f"{kind}: a seed share of {SHARE:.0%} is ahead of {share:.0%}"
                yield Claim("d", text, ahead)


def _experts(settings: Settings) -> Iterator[Claim]:
    """A few of the experts do as well as all."""
    for top_k in (1, 2, 4):
        for where, domains in (("trained", settings.domains), ("unseen", settings.unseen)):
            lost = behind(ensemble(SHARE, top_k), ensemble(), domains)
            text = f"top {top_k} loses less than 1 % of perplexity to all, {where} domains"
            yield Claim("f", text, lost, NOTHING)


def _domains(settings: Settings) -> Iterator[Claim]:
    """The gain over dense grows with the number of domains."""
    count = len(settings.domains)
    numbers = [*(number for number in FEWER if number < count), count]
    for fewer, more in pairwise(numbers):
        terms = [
            *behind(ensemble_of(more), dense(more), settings.domains[:more]),
            *behind(dense(fewer), ensemble_of(fewer), settings.domains[:fewer]),
        ]
        yield Claim("g", f"the gain over dense is larger with {more} domains than {fewer}", terms)


def findings(measured: Measured, settings: Settings, resamples: int = RESAMPLES) -> list[Finding]:
    """Every claim with its contrast."""
    return [
        Finding(claim, contrast(measured, claim.terms, resamples=resamples))
        for claim in claims(settings)
    ]
