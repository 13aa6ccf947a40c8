"""What is printed at the end: perplexities by domain, and a verdict for each claim."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from benchmarks.btm.claims import Finding
from benchmarks.btm.contrasts import Measured, behind, contrast
from benchmarks.btm.names import (
    BEST,
    RANDOM,
    SEED,
    TOP_K,
    dense,
    ensemble,
    ensemble_of,
    posterior_average,
    uniform_average,
)
from benchmarks.btm.plan import SHARE, SHARES, Plan, Settings

_NAME = 40
_CELL = 11


def report(
    measured: Measured, found: Sequence[Finding], settings: Settings, plan: Plan
) -> Iterator[str]:
    """The lines."""
    yield from _perplexities(measured, settings)
    yield from _sweep(measured, settings)
    yield from _numbers(measured, settings, plan)
    yield ""
    yield "Each difference in nats a token, its 95 % interval over documents and seeds;"
    yield "below zero is ahead"
    for one in found:
        of, claim = one.contrast, one.claim
        numbers = f"{of.value:+.4f} [{of.low:+.4f}, {of.high:+.4f}]"
        against = f" against {claim.limit:+.4f}" if claim.limit else ""
        yield f"({claim.letter}) {claim.text}: {numbers}{against}: {one.verdict}"


def _perplexities(measured: Measured, settings: Settings) -> Iterator[str]:
    systems = [
        SEED,
        dense(),
        RANDOM,
        ensemble(),
        *(ensemble(SHARE, top_k) for top_k in TOP_K),
        BEST,
        uniform_average(),
        posterior_average(),
    ]
    columns = {
        "trained": settings.domains,
        "unseen": settings.unseen,
        "all": (*settings.domains, *settings.unseen),
        **{name: (name,) for name in (*settings.domains, *settings.unseen)},
    }
    yield ""
    yield f"Perplexity at a seed share of {SHARE:.0%} (trained, unseen, all: geometric means)"
    names = list(columns)
    for begin in range(0, len(names), 5):
        some = names[begin : begin + 5]
        yield ""
        yield _line("", some)
        for system in systems:
            yield _line(system, [f"{measured.perplexity(system, columns[n]):.2f}" for n in some])


def _sweep(measured: Measured, settings: Settings) -> Iterator[str]:
    yield ""
    yield "Perplexity on trained domains by the seed's share of all tokens"
    yield _line("", [f"{share:.0%}" for share in SHARES])
    for name, system in (
        ("ensemble", ensemble),
        ("uniform average", uniform_average),
        ("posterior average", posterior_average),
    ):
        found = [measured.perplexity(system(share), settings.domains) for share in SHARES]
        yield _line(name, [f"{value:.2f}" for value in found])


def _numbers(measured: Measured, settings: Settings, plan: Plan) -> Iterator[str]:
    yield ""
    yield "Perplexity by the number of domains, on those domains, and what the ensemble gains"
    yield _line("", ["dense", "ensemble", "gain"])
    for number in plan.dense:
        domains = settings.domains[:number]
        gain = contrast(measured, behind(ensemble_of(number), dense(number), domains))
        values = [measured.perplexity(x(number), domains) for x in (dense, ensemble_of)]
        cells = [f"{value:.2f}" for value in values]
        yield _line(f"{number} domains", [*cells, f"{1 - math.exp(gain.value):.2%}"])


def _line(name: str, cells: Sequence[str]) -> str:
    return f"{name:<{_NAME}}" + "".join(f"{cell:>{_CELL}}" for cell in cells)
