"""The systems that are compared, out of what the models of a plan read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from benchmarks.btm.bench import Bench
from benchmarks.btm.contrasts import Measured
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
from benchmarks.btm.plan import SHARE, Forest, Model, Plan
from benchmarks.btm.reading import Read, Reading, by_document, read_all
from benchmarks.btm.workers import Say

from evomerge.evaluation.corpus import Part
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.averages import argmax, uniform
from evomerge.merging.forest.ensemble import score
from evomerge.merging.forest.prior import estimate

_BOTH: tuple[Part, ...] = ("dev", "test")

_Given = tuple[str, str, list[FloatArray]]


def measure(
    executor: ProcessPoolExecutor, bench: Bench, plans: Sequence[Plan], say: Say
) -> Measured:
    """Every system on every domain that it is asked about, by document and seed of training."""
    tokens: dict[str, FloatArray] = {}
    nats: dict[str, dict[str, list[FloatArray]]] = {}
    for plan in plans:
        for system, domain, losses in _of_plan(executor, bench, plan, say):
            tokens.setdefault(domain, by_document(bench, domain, [len(x) for x in losses]))
            given = by_document(bench, domain, [-x.sum() for x in losses])
            nats.setdefault(system, {}).setdefault(domain, []).append(given)
    stacked = {
        system: {domain: np.stack(rows) for domain, rows in domains.items()}
        for system, domains in nats.items()
    }
    return Measured(tokens, stacked)


@dataclass(frozen=True)
class _Grove:
    """A forest whose ELMs have read everything.

    Attributes:
        share: of its seed.
        forest: what was trained.
        read: what each ELM read, in order.
    """

    share: float
    forest: Forest
    read: Sequence[Read]

    def log_probs(self, domain: str, part: Part, elms: int | None = None) -> list[FloatArray]:
        """(n, T) of each piece, of the first n ELMs."""
        rows = [read[domain, part] for read in self.read[:elms]]
        return [np.stack(of_piece) for of_piece in zip(*rows, strict=True)]

    def prior(self, domain: str, elms: int | None = None) -> FloatArray:
        """(n,) from the domain's development pieces."""
        return estimate(self.log_probs(domain, "dev", elms))

    def ensemble(
        self, domain: str, *, top_k: int | None = None, elms: int | None = None
    ) -> list[FloatArray]:
        """What its ensemble with the domain's cached prior gives to the test pieces, (T,) each."""
        with np.errstate(divide="ignore"):
            prior = np.log(self.prior(domain, elms))
        pieces = self.log_probs(domain, "test", elms)
        return [score(piece, prior, top_k=top_k) for piece in pieces]


def _of_plan(executor: ProcessPoolExecutor, bench: Bench, plan: Plan, say: Say) -> Iterator[_Given]:
    """(system, domain, log-probabilities (T,) of its test pieces) of one seed of training."""
    read = read_all(executor, bench, _readings(bench, plan), say)
    groves = {
        share: _Grove(share, forest, [read[elm.name] for elm in forest.elms])
        for share, forest in plan.forests.items()
    }
    random = _Grove(SHARE, plan.random, [read[elm.name] for elm in plan.random.elms])
    yield from _singles(bench, plan, read)
    for share, grove in groves.items():
        for domain in _domains(bench, share):
            yield ensemble(share), domain, grove.ensemble(domain)
    for domain in _domains(bench, SHARE):
        yield RANDOM, domain, random.ensemble(domain)
    yield from _experts(bench, plan, groves[SHARE])
    yield from _averages(executor, bench, groves.values(), say)


def _domains(bench: Bench, share: float) -> tuple[str, ...]:
    """What a forest reads: the unseen domains too, at the share of most claims."""
    settings = bench.settings
    return (*settings.domains, *settings.unseen) if share == SHARE else settings.domains


def _readings(bench: Bench, plan: Plan) -> dict[str, Reading]:
    """What the trained models read, by their names."""
    found = {}
    for forest, share in (*((f, s) for s, f in plan.forests.items()), (plan.random, SHARE)):
        for elm in forest.elms:
            found[elm.name] = _reading(bench, elm, _domains(bench, share), _BOTH)
    everything = _domains(bench, SHARE)
    seed = plan.seed
    found[seed.name] = _reading(bench, seed, everything)
    for model in plan.dense.values():
        same = model.domains == bench.settings.domains
        found[model.name] = _reading(bench, model, everything if same else model.domains)
    return found


def _reading(
    bench: Bench, model: Model, domains: Sequence[str], parts: Sequence[Part] = ("test",)
) -> Reading:
    wanted = tuple((domain, part) for domain in domains for part in parts)
    return Reading((bench.folder(model),), wanted)


def _singles(bench: Bench, plan: Plan, read: Mapping[str, Read]) -> Iterator[_Given]:
    everything = plan.dense[len(bench.settings.domains)]
    for domain in _domains(bench, SHARE):
        yield SEED, domain, read[plan.seed.name][domain, "test"]
        yield dense(), domain, read[everything.name][domain, "test"]
    for number, model in plan.dense.items():
        for domain in model.domains:
            yield dense(number), domain, read[model.name][domain, "test"]


def _experts(bench: Bench, plan: Plan, grove: _Grove) -> Iterator[_Given]:
    """The forest with fewer experts."""
    for domain in _domains(bench, SHARE):
        best = int(argmax(grove.prior(domain)).argmax())
        yield BEST, domain, list(grove.read[best][domain, "test"])
        for top_k in TOP_K:
            yield ensemble(SHARE, top_k), domain, grove.ensemble(domain, top_k=top_k)
    for number, model in plan.dense.items():
        for domain in model.domains:
            yield ensemble_of(number), domain, grove.ensemble(domain, elms=number)


@dataclass(frozen=True)
class _Average:
    """A parameter average of a forest, on the domains that it is for."""

    system: str
    grove: _Grove
    weights: FloatArray
    domains: tuple[str, ...]

    def reading(self, bench: Bench) -> Reading:
        """What it reads."""
        folders = tuple(bench.folder(elm) for elm in self.grove.forest.elms)
        wanted: tuple[tuple[str, Part], ...] = tuple((name, "test") for name in self.domains)
        shared = self.grove.forest.seed is not None
        return Reading(folders, wanted, tuple(map(float, self.weights)), shared)


def _averages(
    executor: ProcessPoolExecutor, bench: Bench, groves: Iterable[_Grove], say: Say
) -> Iterator[_Given]:
    """The parameter averages: one for all domains, and one by each domain's prior."""
    averages = []
    for grove in groves:
        domains = _domains(bench, grove.share)
        equal = uniform(len(grove.read))
        averages.append(_Average(uniform_average(grove.share), grove, equal, domains))
        averages += [
            _Average(posterior_average(grove.share), grove, grove.prior(domain), (domain,))
            for domain in domains
        ]
    readings = {str(place): one.reading(bench) for place, one in enumerate(averages)}
    read = read_all(executor, bench, readings, say)
    for place, one in enumerate(averages):
        for domain in one.domains:
            yield one.system, domain, read[str(place)][domain, "test"]
