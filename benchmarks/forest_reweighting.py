"""Many weightings of a forest over cached log-probabilities: ours against a plain numpy loop.

Run: python benchmarks/forest_reweighting.py [--mixtures 10000] [--elms 8] [--tokens 100000]

The log-probabilities are synthetic, and the same for both; texts are of 500 tokens. Aim: 10,000
mixtures of 8 ELMs over 100,000 tokens in less than 5 seconds on 2 cores. The peer is what one
would write first: for each mixture log(w @ p) in float64, p computed once, and for each prior the
posterior token by token as `ensemble.score` does it. It runs over the first `--peers` weightings
only and counts for all, since they cost it alike. `apart` is the largest difference between both,
in nats a token of a text. `sparse` weights are such that most ELMs have next to none, the harder
case for float32. Rounds alternate, so that a busy machine hits both alike.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.ensemble import score
from evomerge.merging.forest.posterior import History
from evomerge.merging.forest.reweighting import Reweighting

TEXT = 500
SPREAD = 2.0


@dataclass(frozen=True)
class Race:
    """One kind of weighting.

    Attributes:
        ours: (m, texts) for all weightings.
        peer: (texts,) for one.
    """

    name: str
    weights: FloatArray
    ours: Callable[[FloatArray], FloatArray]
    peer: Callable[[FloatArray], FloatArray]


def read_texts(elms: int, tokens: int, random: np.random.Generator) -> list[FloatArray]:
    """Texts (n, T): tokens of all difficulties, ELMs that differ by a few nats."""
    common = random.gamma(1.5, 2.0, tokens)
    log_probs = -np.abs(common + random.normal(0, SPREAD, (elms, tokens)))
    return np.split(log_probs, range(TEXT, tokens, TEXT), axis=1)


def races(texts: list[FloatArray], mixtures: int, random: np.random.Generator) -> list[Race]:
    elms = len(texts[0])
    threads = os.cpu_count() or 1
    reweighting = Reweighting(texts)
    probabilities = np.exp(np.concatenate(texts, axis=1))
    starts = np.cumsum(reweighting.tokens) - reweighting.tokens

    def mixed(weights: FloatArray) -> FloatArray:
        sums: FloatArray = np.add.reduceat(np.log(weights @ probabilities), starts)
        return sums

    def scored(history: History, prior: FloatArray) -> FloatArray:
        return np.array([score(text, np.log(prior), history=history).sum() for text in texts])

    dense = random.dirichlet(np.ones(elms), mixtures)
    sparse = random.dirichlet(np.full(elms, 0.05), mixtures)
    # Weights so small that they are 0 would have no logarithm.
    sparse = np.maximum(sparse, 1e-300)
    ours = partial(reweighting.mixtures, threads=threads)
    posteriors = partial(reweighting.posteriors, threads=threads)
    return [
        Race("fixed weights", dense, ours, mixed),
        Race("fixed weights, sparse", sparse, ours, mixed),
        Race("posterior, full history", dense, posteriors, partial(scored, "full")),
        Race(
            "posterior, previous token",
            dense,
            partial(posteriors, history="previous"),
            partial(scored, "previous"),
        ),
    ]


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(race: Race, rounds: int, peers: int) -> str:
    """One line of the table."""
    first = race.weights[:peers]

    def theirs() -> FloatArray:
        return np.stack([race.peer(row) for row in first])

    # The first call lays the texts out.
    apart = np.abs(race.ours(first) - theirs()).max() / TEXT
    mine, plain = [], []
    for _ in range(rounds):
        mine.append(seconds(lambda: race.ours(race.weights)))
        plain.append(seconds(theirs) * len(race.weights) / len(first))
    s, t = statistics.median(mine), statistics.median(plain)
    return f"{race.name:<26}{s:>8.2f}{t:>10.1f}{t / s:>9.0f}{apart:>10.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mixtures", type=int, default=10_000)
    parser.add_argument("--elms", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=int, default=10)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    texts = read_texts(arguments.elms, arguments.tokens, random)
    print(
        f"{os.cpu_count()} cores; {arguments.mixtures} weightings of {arguments.elms} ELMs over "
        f"{arguments.tokens} tokens in {len(texts)} texts; {arguments.rounds} rounds, medians"
    )
    print(f"{'weighting':<26}{'ours s':>8}{'numpy s':>10}{'times':>9}{'apart':>10}", flush=True)
    for race in races(texts, arguments.mixtures, random):
        print(run(race, arguments.rounds, arguments.peers), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak / 1024:.0f} MB")


if __name__ == "__main__":
    main()
