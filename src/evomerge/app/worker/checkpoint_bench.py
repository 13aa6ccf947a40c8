"""A forest's ELMs over their seed in memory, as a job merges their weights. Needs torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np

from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.settings import Settings
from evomerge.app.worker.lora_bench import DTYPES, scoring
from evomerge.app.worker.posterior import rounded, sample
from evomerge.app.worker.workbench import Baseline
from evomerge.connectors.base import Evaluator, Scores
from evomerge.connectors.local.checkpoint_ensemble import ElmReader, EnsembleEvaluator
from evomerge.connectors.local.checkpoint_evaluator import CheckpointEvaluator, Unchanged
from evomerge.connectors.local.evaluator import LIKELIHOODS, LocalEvaluator
from evomerge.connectors.local.merged_weights import MergedWeights
from evomerge.connectors.local.rows import Row
from evomerge.evaluation import Example
from evomerge.merging.checkpoint.filling import Rounding
from evomerge.merging.checkpoint.lineage import Lineage, merged_lineage, read_lineage
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.checkpoint.writing import write_into
from evomerge.merging.forest.averages import argmax
from evomerge.optimizers import Candidate, FloatArray


class CheckpointBench:
    """A `Workbench` over ELMs of one seed.

    The posterior of the job's domain is estimated once, on rows of the search alone.

    Args:
        merging: the seed and its ELMs.
        spec, inputs: of the job.
        settings: of the deployment.
        examples: of the search.

    Raises:
        BrokenElmError: an ELM gives NaN.
        ContextOverflowError, EmptyAnswerError: an example cannot be read.
    """

    def __init__(
        self,
        merging: MergedWeights[CheckpointSpace],
        spec: MergeJobSpec,
        inputs: JobInputs,
        settings: Settings,
        examples: Sequence[Example],
    ) -> None:
        self._merging = merging
        self._spec = spec
        self._inputs = inputs
        self._scoring = scoring(spec, settings)
        self._dtype = None if spec.output.dtype is None else DTYPES[spec.output.dtype]
        self._evaluator = cache(self._make_evaluator)
        self._reader = ElmReader(merging, settings.batch_tokens)
        self._posterior = self._reader.prior(self._rows(examples))

    @property
    def base_hash(self) -> str:
        return self._merging.base.content_hash

    def starts(self) -> Sequence[FloatArray]:
        """The posterior, which is the strongest average that needs no search."""
        return (rounded(self._posterior),)

    def check(self, metric: Metric, examples: Sequence[Example]) -> None:
        self._evaluator(metric, None).check(examples)

    def evaluator(self, metric: Metric) -> Evaluator:
        return self._evaluator(metric, None)

    def plain(self, metric: Metric) -> Evaluator:
        return self._evaluator(metric, None)

    def merge(self, candidate: Candidate) -> StoredCheckpoint:
        return StoredCheckpoint(self, candidate)

    def baselines(self) -> Mapping[str, Baseline]:
        """Averages of Branch-Train-Merge by the posterior, and its ensemble."""
        posterior = self._weighted(self._posterior)
        return {
            "argmax": Baseline(self._weighted(argmax(self._posterior)), self.plain),
            "posterior": Baseline(posterior, self.plain),
            "btm_ensemble": Baseline(posterior, self._ensemble, LIKELIHOODS),
        }

    def stored_evaluator(self, candidate: Candidate, metric: Metric) -> Evaluator:
        """Scores the checkpoint of a candidate, rounded as it is stored."""
        return OneEvaluator(self._evaluator(metric, self._dtype or "seed"), candidate)

    def write(self, candidate: Candidate, folder: Path) -> None:
        """The checkpoint of a candidate, into a folder that is there."""
        recipe = self._merging.space.recipe(candidate, self._dtype, self.lineage(candidate))
        write_into(recipe, folder)

    def _weighted(self, weights: FloatArray) -> Candidate:
        """Every ELM whole, with these weights (N,) in each group of layers."""
        beta = np.tile(weights, (self._spec.layer_groups, 1))
        return Candidate(np.ones_like(beta), beta)

    def lineage(self, candidate: Candidate) -> Lineage:
        """Where the checkpoint of a candidate comes from."""
        return merged_lineage(
            self.base_hash,
            [read_lineage(folder) for folder in self._inputs.folders],
            [expert.content_hash for expert in self._inputs.experts],
            candidate.beta.mean(axis=0).tolist(),
        )

    def _rows(self, examples: Sequence[Example]) -> list[Row]:
        """What the posterior is estimated on: rows of all datasets, in an order of the seed's."""
        places = sample(len(examples), self._spec.seed)
        return self._scorer("cross_entropy").rows([examples[place] for place in places])

    def _ensemble(self, metric: Metric) -> Evaluator:
        return EnsembleEvaluator(self._reader, self._posterior, self._scorer(metric), metric)

    def _scorer(self, metric: Metric) -> LocalEvaluator:
        """Makes rows as the job wants them."""
        return LocalEvaluator(self._merging.base, Unchanged(), metric, **self._scoring)

    def _make_evaluator(self, metric: Metric, dtype: Rounding) -> CheckpointEvaluator:
        return CheckpointEvaluator(self._merging, metric, dtype=dtype, **self._scoring)


class CheckpointMaker(Protocol):
    """Makes checkpoints of candidates."""

    def stored_evaluator(self, candidate: Candidate, metric: Metric) -> Evaluator: ...

    def write(self, candidate: Candidate, folder: Path) -> None: ...


class StoredCheckpoint:
    """A `StoredModel`: a checkpoint rounded as it is written."""

    rank = None

    def __init__(self, bench: CheckpointMaker, candidate: Candidate) -> None:
        self._bench = bench
        self._candidate = candidate

    def evaluator(self, metric: Metric) -> Evaluator:
        return self._bench.stored_evaluator(self._candidate, metric)

    def write(self, folder: Path) -> None:
        self._bench.write(self._candidate, folder)


class OneEvaluator:
    """Scores one candidate, whatever is said to stand for it."""

    def __init__(self, evaluator: CheckpointEvaluator, candidate: Candidate) -> None:
        self._evaluator = evaluator
        self._candidate = candidate

    def width(self, examples: Sequence[Example]) -> int:
        return 1

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        return await self._evaluator.score([self._candidate] * len(candidates), examples)
