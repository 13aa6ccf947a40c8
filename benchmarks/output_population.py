"""A population of output merges scored from cached answers: ours against a plain numpy loop.

Run: python benchmarks/output_population.py [--candidates 10000] [--rounds 3] [--peers 20]

The peer is what one would write first: for each candidate, the definition of its fusion over all
examples at once in numpy (for items and texts, whose number differs, example by example). It runs
over the first `--peers` candidates only and counts for as many as ours scores, since candidates
cost it alike. Both are checked to agree. Alphas are all different, as in the denoising stage, the
harder case; `alpha 1` is the scaling stage. Rounds alternate, so that a busy machine hits both
alike.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.agreement import AgreementFusion, Utilities
from evomerge.merging.output.choice import ChoiceFusion
from evomerge.merging.output.extraction import GRID, ExtractionFusion, ItemVotes
from evomerge.merging.output.fusion import CUT, Fusion
from evomerge.merging.output.mixture import MixtureFusion, TokenScores

EXPERTS = 20
EXAMPLES = 500
OPTIONS = 4
HEAD = 0.1


@dataclass(frozen=True)
class Race:
    """One fusion, and the peer that gives one candidate's losses."""

    name: str
    fusion: Fusion
    metric: str
    peer: Callable[[FloatArray, FloatArray], FloatArray]


def active(alpha: FloatArray, beta: FloatArray) -> FloatArray:
    """beta of the experts that take part."""
    weights = np.where(alpha >= CUT, beta, 0.0)
    return weights if (weights > 0).any() else np.zeros_like(weights)


def choice(random: np.random.Generator) -> Race:
    log_probs = np.log(random.dirichlet(np.ones(OPTIONS), (EXAMPLES, EXPERTS)))
    truth = random.integers(0, OPTIONS, EXAMPLES)
    z = log_probs - log_probs.mean(axis=2, keepdims=True)
    ranks = np.argsort(np.argsort(-np.abs(z), axis=2, kind="stable"), axis=2)
    plausible = np.exp(log_probs - log_probs.max(axis=2, keepdims=True)) >= HEAD

    def peer(alpha: FloatArray, beta: FloatArray) -> FloatArray:
        weights = active(alpha, beta)
        kept = np.where(ranks < np.ceil(alpha * OPTIONS)[:, None], z, 0.0)
        terms = weights[:, None] * kept
        for_it = terms[:, weights > 0].sum(axis=1)
        against = terms[:, weights < 0].sum(axis=1)
        head = plausible[:, weights > 0].any(axis=1)
        least = np.where(head, against, np.inf).min(axis=1, keepdims=True)
        scores = for_it + np.where(head, against, np.where(np.isinf(least), 0.0, least))
        top = scores.max(axis=1)
        total = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top
        loss: FloatArray = total - scores[np.arange(EXAMPLES), truth]
        return loss

    fusion = ChoiceFusion(log_probs, np.full(EXAMPLES, OPTIONS), truth, head=HEAD)
    return Race("choice", fusion, "cross_entropy", peer)


def extraction(random: np.random.Generator) -> Race:
    rows = []
    for _ in range(EXAMPLES):
        items = int(random.integers(5, 25))
        shares = (random.random((EXPERTS, items)) < 0.25).astype(float)
        true = random.random(items) < 0.2
        places = np.argsort(random.random((EXPERTS, items)), axis=1)
        answered = np.ones(EXPERTS, dtype=bool)
        rows.append(ItemVotes(shares, places, answered, true, int(true.sum())))
    ranks, sizes = [], []
    for row in rows:
        order = np.lexsort((row.places, -row.shares), axis=-1)
        ranks.append(np.argsort(order, axis=1))
        sizes.append((row.shares > 0).sum(axis=1))

    def peer(alpha: FloatArray, beta: FloatArray) -> FloatArray:
        weights = active(alpha, beta)
        scale = np.maximum(weights, 0.0).sum() or np.inf
        losses = np.empty((EXAMPLES, GRID))
        for x, row in enumerate(rows):
            kept = np.where(ranks[x] < np.ceil(alpha * sizes[x])[:, None], row.shares, 0.0)
            vote = weights @ kept / scale
            for g in range(1, GRID + 1):
                said = vote >= g / GRID - 1e-9
                right = (said & row.true).sum()
                total = said.sum() + row.truths
                losses[x, g - 1] = 1 - 2 * right / total if total else 0.0
        best: FloatArray = losses[:, losses.mean(axis=0).argmin()]
        return best

    return Race("extraction", ExtractionFusion(rows), "item_f1", peer)


def agreement(random: np.random.Generator) -> Race:
    rows = []
    for _ in range(EXAMPLES):
        answers = int(random.integers(8, EXPERTS + 1))
        said = np.zeros((EXPERTS, answers), dtype=bool)
        said[np.arange(EXPERTS), random.integers(0, answers, EXPERTS)] = True
        likeness = random.integers(0, 20, (answers, answers)) / 20
        np.fill_diagonal(likeness, 1.0)
        rows.append(Utilities(said @ likeness, said, {"token_f1": random.random(answers + 1)}))

    def peer(alpha: FloatArray, beta: FloatArray) -> FloatArray:
        weights = active(alpha, beta)
        losses = np.empty(EXAMPLES)
        for x, row in enumerate(rows):
            kept = np.where(1 - row.utility < alpha[:, None] - 1e-9, row.utility, 0.0)
            support = np.where(row.said[weights > 0].any(axis=0), weights @ kept, -np.inf)
            near = support >= support.max() - 1e-9
            losses[x] = row.losses["token_f1"][-1 if np.isneginf(support).all() else near.argmax()]
        return losses

    return Race("free text", AgreementFusion(rows), "token_f1", peer)


def mixture(random: np.random.Generator) -> Race:
    rows = []
    for _ in range(EXAMPLES):
        tokens = int(random.integers(4, 40))
        log_probs = -random.exponential(2.0, (EXPERTS, tokens))
        rows.append(TokenScores(log_probs, np.ones(EXPERTS, dtype=bool), 4 * tokens))

    def peer(alpha: FloatArray, beta: FloatArray) -> FloatArray:
        weights = active(alpha, np.maximum(beta, 0.0))
        w = weights / weights.sum()
        return np.array([-np.log(w @ np.exp(row.log_probs)).mean() for row in rows])

    return Race("scored text", MixtureFusion(rows), "cross_entropy", peer)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def run(race: Race, alpha: FloatArray, beta: FloatArray, rounds: int, peers: int) -> str:
    """One line of the table."""

    def ours() -> FloatArray:
        return race.fusion.losses(alpha, beta, race.metric)

    def theirs() -> FloatArray:
        pairs = zip(alpha[:peers], beta[:peers], strict=True)
        return np.array([race.peer(a, b) for a, b in pairs])

    means = ours()[:peers].mean(axis=1), theirs().mean(axis=1)
    np.testing.assert_allclose(*means, atol=1e-9)
    mine, plain = [], []
    for _ in range(rounds):
        mine.append(seconds(ours))
        plain.append(seconds(theirs) * len(alpha) / peers)
    s, t = statistics.median(mine), statistics.median(plain)
    stage = "alpha 1" if (alpha == 1).all() else "any alpha"
    return f"{race.name:<12} {stage:<10} {s:>8.2f} {t:>9.1f} {s / t:>12.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=int, default=20)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    shape = (arguments.candidates, EXPERTS)
    alpha, beta = random.random(shape), random.normal(size=shape)
    # Somebody always has a positive weight.
    alpha[:, 0], beta[:, 0] = 1.0, np.abs(beta[:, 0])
    print(
        f"{os.cpu_count()} cores; {arguments.candidates} candidates, {EXPERTS} experts, "
        f"{EXAMPLES} examples, {OPTIONS} options; {arguments.rounds} rounds"
    )
    print(
        f"{'fusion':<12} {'stage':<10} {'ours s':>8} {'numpy s':>9} {'ours / numpy':>12} (medians)"
    )
    for make in (choice, extraction, agreement, mixture):
        race = make(random)
        for some in (alpha, np.ones_like(alpha)):
            print(run(race, some, beta, arguments.rounds, arguments.peers), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak / 1024:.0f} MB")


if __name__ == "__main__":
    main()
