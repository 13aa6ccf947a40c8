"""A forest's ELMs as fixed mixtures: what each gave to every token, weighed by any candidate.

Every number is there before the search begins, so that no candidate runs a model. A candidate that
keeps no ELM is the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.app.mixtures import StoredMixture, Voice
from evomerge.app.schemas.inputs import JobInputs, SeedInput
from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.worker.inputs import Side
from evomerge.app.worker.output_bench import FusedEvaluator, StoredMerge
from evomerge.app.worker.posterior import rounded, sample
from evomerge.app.worker.workbench import Baseline
from evomerge.evaluation import Example
from evomerge.merging.forest.averages import argmax
from evomerge.merging.forest.ensemble import score
from evomerge.merging.forest.prior import Prior, estimate
from evomerge.merging.output.fusion import cost_share, effective, kept
from evomerge.merging.output.mixture import MixtureFusion, TokenScores
from evomerge.optimizers import Candidate, FloatArray

# Stands for a probability of 0; a fusion takes finite numbers.
_LEAST = float(np.finfo(np.float32).min)
SEED = "seed"


@dataclass(frozen=True)
class ReadSide:
    """One side of the data, as the models have read it.

    Attributes:
        side: the examples.
        log_probs: of each example (1 + N, T - 1): of all its T tokens but the first, by the seed
            and then each ELM.
        scored: of each example, how many tokens at its end are scored.
    """

    side: Side
    log_probs: tuple[FloatArray, ...]
    scored: tuple[int, ...]

    @property
    def elms(self) -> list[FloatArray]:
        """What the ELMs alone gave, (N, T - 1) of each example."""
        return [every[1:] for every in self.log_probs]

    def fusion(self) -> MixtureFusion:
        """Mixes the scored tokens, the seed's first."""
        rows = zip(self.side.examples, self.log_probs, self.scored, strict=True)
        return MixtureFusion(
            [
                TokenScores(
                    np.maximum(every[:, -scored:], _LEAST),
                    np.ones(len(every), dtype=bool),
                    len(example.completion.encode()),
                )
                for example, every, scored in rows
            ]
        )


class MixtureBench:
    """A `Workbench` over what a forest has read.

    The posterior of the job's domain is estimated once, on rows of the search alone.

    Args:
        spec, inputs: of the job.
        seed: of its forest.
        search, held_out: both sides, read.
    """

    def __init__(
        self,
        spec: MergeJobSpec,
        inputs: JobInputs,
        seed: SeedInput,
        search: ReadSide,
        held_out: ReadSide,
    ) -> None:
        self._spec = spec
        self._inputs = inputs
        self._seed = seed
        self._search = search
        self._held_out = held_out
        self._fusions = (search.fusion(), held_out.fusion())
        read = search.elms
        self._posterior = estimate([read[place] for place in sample(len(read), spec.seed)])

    @property
    def base_hash(self) -> str:
        return self._seed.content_hash

    def starts(self) -> Sequence[FloatArray]:
        """The posterior, which is the strongest mixture that needs no search."""
        return (rounded(self._posterior),)

    def check(self, metric: Metric, examples: Sequence[Example]) -> None:
        """Nothing is left to refuse: creation looked at the metric, and reading at the rows."""

    def evaluator(self, metric: Metric) -> FusedEvaluator:
        return FusedEvaluator(self, metric)

    def plain(self, metric: Metric) -> FusedEvaluator:
        return FusedEvaluator(self, metric)

    def merge(self, candidate: Candidate) -> StoredMerge:
        return StoredMerge(self, candidate, self._stored(candidate))

    def baselines(self) -> Mapping[str, Baseline]:
        """Mixtures of Branch-Train-Merge: of fixed weights, and by the posterior of each token."""
        posterior = _whole(self._posterior)
        return {
            "argmax": Baseline(_whole(argmax(self._posterior)), self.plain),
            "posterior": Baseline(posterior, self.plain),
            "btm_ensemble": Baseline(posterior, self._ensemble),
        }

    def losses(
        self, metric: Metric, candidates: Sequence[Candidate], examples: Sequence[Example]
    ) -> tuple[FloatArray, FloatArray]:
        """(candidates, examples) losses and (examples,) weights; on search data with the price."""
        searching = examples is self._search.side.examples
        fusion = self._fusions[0 if searching else 1]
        alpha = np.concatenate([one.alpha for one in candidates])
        beta = np.concatenate([one.beta for one in candidates])
        losses = fusion.losses(*_with_seed(alpha, beta), metric)
        if searching and self._spec.fusion.price:
            # ELMs of one architecture cost the same.
            share = cost_share(_speaking(alpha, beta), np.ones(alpha.shape[1]))
            losses = losses + self._spec.fusion.price * share[:, None]
        return losses, fusion.weights()

    def ensemble_losses(self, examples: Sequence[Example]) -> tuple[FloatArray, FloatArray]:
        """(examples,) losses of the ensemble by posterior, and their weights."""
        searching = examples is self._search.side.examples
        read = self._search if searching else self._held_out
        log_prior = Prior.cached(self._posterior).log
        losses = [
            -float(score(every, log_prior)[-scored:].mean())
            for every, scored in zip(read.elms, read.scored, strict=True)
        ]
        return np.array(losses), np.array(read.scored, dtype=np.float64)

    def _ensemble(self, metric: Metric) -> FusedEvaluator:
        return FusedEvaluator(_Ensemble(self), metric)

    def _stored(self, candidate: Candidate) -> StoredMixture:
        alpha, beta = _with_seed(candidate.alpha, candidate.beta)
        weights = effective(alpha, np.maximum(beta, 0.0))[0]
        shares = (weights / weights.sum()).tolist()
        known = [
            (SEED, self._seed.content_hash),
            *((one.name, one.content_hash) for one in self._inputs.experts),
        ]
        voices = [
            Voice(name, content_hash, share)
            for (name, content_hash), share in zip(known, shares, strict=True)
            if share > 0
        ]
        return StoredMixture(self._seed.forest, tuple(voices))


@dataclass(frozen=True)
class _Ensemble:
    """`Losses` of the ensemble by posterior, whatever candidate is said to stand for it."""

    bench: MixtureBench

    def losses(
        self, metric: Metric, candidates: Sequence[Candidate], examples: Sequence[Example]
    ) -> tuple[FloatArray, FloatArray]:
        losses, weights = self.bench.ensemble_losses(examples)
        return np.tile(losses, (len(candidates), 1)), weights


def _whole(weights: FloatArray) -> Candidate:
    """Every ELM whole, with these weights (N,)."""
    return Candidate(np.ones((1, len(weights))), weights[None])


def _speaking(alpha: FloatArray, beta: FloatArray) -> np.ndarray:
    """Which ELMs have a part, (P, N) bool."""
    return kept(alpha, np.maximum(beta, 0.0))


def _with_seed(alpha: FloatArray, beta: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Candidates (P, N) over the seed and the ELMs, (P, 1 + N): the seed speaks if no ELM does."""
    alone = ~_speaking(alpha, beta).any(axis=1, keepdims=True)
    whole = np.ones_like(alone, dtype=np.float64)
    return np.hstack([whole, alpha]), np.hstack([alone.astype(np.float64), beta])
