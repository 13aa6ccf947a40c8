"""What a generation of the search costs beside its evaluations: ours against plain pycma.

Run: python benchmarks/search_overhead.py [--rounds 5] [--generations 60]

Plain pycma is used as its own documentation shows, with its defaults, BLAS as it finds it. Ours is
the scaling stage of Evo-Merging with its defaults: one BLAS thread, a diagonal covariance above
200 dimensions, candidates made and checked. Both minimise the same quadratic with the same
population; only ask and tell are timed. Rounds alternate, so that a busy machine hits both alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings

import numpy as np

from evomerge.optimizers import Cma, FloatArray, ScalingParameters
from evomerge.optimizers.parameters import default_population

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import cma

SIZES = (10, 100, 300)
SIGMA = 0.1
BOUND = 1.5


def losses_of(points: FloatArray, target: FloatArray) -> FloatArray:
    """Squared distances to the target, (population,)."""
    losses: FloatArray = ((points - target) ** 2).mean(axis=1)
    return losses


def ours(target: FloatArray, generations: int, seed: int) -> float:
    """Milliseconds a generation."""
    evaluations = generations * default_population(len(target))
    search = Cma(len(target), ScalingParameters(evaluations=evaluations, sigma=SIGMA), seed=seed)
    spent, told = 0.0, 0
    while not search.done:
        start = time.perf_counter()
        candidates = search.ask()
        spent += time.perf_counter() - start
        losses = losses_of(np.array([c.beta[0] for c in candidates]), target)
        start = time.perf_counter()
        search.tell(candidates, losses)
        spent += time.perf_counter() - start
        told += 1
    return 1e3 * spent / told


def plain(target: FloatArray, generations: int, seed: int) -> float:
    """Milliseconds a generation."""
    options = {"bounds": [-BOUND, BOUND], "seed": seed + 1, "verbose": -9}
    strategy = cma.CMAEvolutionStrategy(np.full(len(target), 1 / len(target)), SIGMA, options)
    spent = 0.0
    for _ in range(generations):
        start = time.perf_counter()
        points = strategy.ask()
        spent += time.perf_counter() - start
        losses = losses_of(np.array(points), target)
        start = time.perf_counter()
        strategy.tell(points, losses.tolist())
        spent += time.perf_counter() - start
    return 1e3 * spent / generations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--generations", type=int, default=60)
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, {arguments.rounds} rounds of {arguments.generations}")
    print(f"{'experts':>8} {'ours ms':>9} {'pycma ms':>9} {'ours / pycma':>13}   (medians)")
    for experts in SIZES:
        target = np.random.RandomState(0).uniform(-1, 1, experts)
        rounds = [
            (ours(target, arguments.generations, seed), plain(target, arguments.generations, seed))
            for seed in range(arguments.rounds)
        ]
        mine, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"{experts:>8} {mine:>9.2f} {theirs:>9.2f} {mine / theirs:>13.2f}")


if __name__ == "__main__":
    main()
