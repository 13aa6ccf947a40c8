"""Fusions of random evidence, one maker a kind, with what their contract needs to know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.agreement import AgreementFusion, Utilities
from evomerge.merging.output.choice import ChoiceFusion
from evomerge.merging.output.extraction import ExtractionFusion, ItemVotes
from evomerge.merging.output.fusion import Fusion
from evomerge.merging.output.mixture import MixtureFusion, TokenScores


@dataclass(frozen=True)
class Maker:
    """Makes fusions of one kind.

    Attributes:
        metric: one that it measures.
        make: the fusion of evidence that depends on the seed alone, for these experts of a pool of
            `POOL` in this order, over `rows` examples of it; `noise` replaces what the experts in
            `noisy` said, `silent` took from them.
    """

    metric: str
    make: Callable[..., Fusion]


POOL = 5
ROWS = 7


def choice(
    seed: int,
    experts: Sequence[int] = range(POOL),
    rows: Sequence[int] = range(ROWS),
    noisy: Sequence[int] = (),
    silent: Sequence[int] = (),
) -> Fusion:
    random = np.random.default_rng(seed)
    log_probs = random.normal(size=(ROWS, POOL, 6)) * 2
    options = random.integers(2, 7, ROWS)
    truth = random.integers(0, options)
    log_probs[random.random((ROWS, POOL)) < 0.1] = np.nan
    log_probs[:, list(noisy)] = random.normal(size=(ROWS, len(noisy), 6)) * 9
    log_probs[:, list(silent)] = np.nan
    chosen = log_probs[np.ix_(list(rows), list(experts))]
    return ChoiceFusion(chosen, options[list(rows)], truth[list(rows)])


def extraction(
    seed: int,
    experts: Sequence[int] = range(POOL),
    rows: Sequence[int] = range(ROWS),
    noisy: Sequence[int] = (),
    silent: Sequence[int] = (),
) -> Fusion:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(ROWS):
        items = int(random.integers(0, 9))
        shares = random.integers(0, 4, (POOL, items)) / 3
        places = np.argsort(random.random((POOL, items)), axis=1)
        answered = random.random(POOL) < 0.9
        true = random.random(items) < 0.5
        truths = int(true.sum() + random.integers(0, 2))
        other = random.integers(0, 4, (POOL, items)) / 3
        shares[list(noisy)] = other[list(noisy)]
        answered[list(silent)] = False
        own = list(experts)
        made.append(ItemVotes(shares[own], places[own], answered[own], true, truths))
    return ExtractionFusion([made[row] for row in rows])


def agreement(
    seed: int,
    experts: Sequence[int] = range(POOL),
    rows: Sequence[int] = range(ROWS),
    noisy: Sequence[int] = (),
    silent: Sequence[int] = (),
) -> Fusion:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(ROWS):
        answers = int(random.integers(POOL, 9))
        utility = random.random((POOL, answers))
        said = np.zeros((POOL, answers), dtype=bool)
        said[np.arange(POOL), random.permutation(answers)[:POOL]] = True
        said[random.random(POOL) < 0.1] = False
        losses = random.random(answers + 1)
        other = random.random((POOL, answers))
        utility[list(noisy)] = other[list(noisy)]
        said[list(silent)] = False
        own = list(experts)
        made.append(Utilities(utility[own], said[own], {"token_f1": losses}))
    return AgreementFusion([made[row] for row in rows])


def mixture(
    seed: int,
    experts: Sequence[int] = range(POOL),
    rows: Sequence[int] = range(ROWS),
    noisy: Sequence[int] = (),
    silent: Sequence[int] = (),
) -> Fusion:
    random = np.random.default_rng(seed)
    made = []
    for _ in range(ROWS):
        tokens = int(random.integers(1, 9))
        log_probs = -random.exponential(3.0, (POOL, tokens))
        answered = random.random(POOL) < 0.9
        other = -random.exponential(9.0, (POOL, tokens))
        log_probs[list(noisy)] = other[list(noisy)]
        answered[list(silent)] = False
        own = list(experts)
        made.append(TokenScores(log_probs[own], answered[own], bytes=4 * tokens))
    return MixtureFusion([made[row] for row in rows])


MAKERS = {
    "choice entropy": Maker("cross_entropy", choice),
    "choice accuracy": Maker("choice_accuracy", choice),
    "extraction f1": Maker("item_f1", extraction),
    "extraction precision": Maker("item_precision", extraction),
    "extraction recall": Maker("item_recall", extraction),
    "agreement": Maker("token_f1", agreement),
    "mixture": Maker("cross_entropy", mixture),
}


def population(seed: int, candidates: int, experts: int = POOL) -> tuple[FloatArray, FloatArray]:
    """alpha and beta with drops, signs and full experts among them."""
    random = np.random.default_rng(seed)
    alpha = np.where(
        random.random((candidates, experts)) < 0.3,
        random.choice([0.0, 0.049, 1.0], (candidates, experts)),
        random.random((candidates, experts)),
    )
    beta = random.normal(size=(candidates, experts))
    return alpha, np.where(random.random(beta.shape) < 0.2, 0.0, beta)
