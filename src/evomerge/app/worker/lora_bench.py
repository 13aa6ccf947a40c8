"""A pool of LoRA experts over a base in memory, as a job uses it. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.settings import Settings
from evomerge.connectors.base import Evaluator, Scores
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.evaluator import LocalEvaluator, Scoring
from evomerge.evaluation import Example
from evomerge.merging.lora.artifact import MergedAdapter, merged_adapter
from evomerge.merging.lora.pool import LoraPool
from evomerge.merging.lora.space import LoraSpace
from evomerge.optimizers import Candidate, FloatArray

CHECKPOINT = "checkpoint"
# Of adapters, where a job asks for no other.
DTYPE = "bfloat16"
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


def scoring(spec: MergeJobSpec, settings: Settings) -> Scoring:
    """How rows are made and run, as a job asks for it."""
    objective = spec.objective
    return Scoring(
        batch_tokens=settings.batch_tokens,
        context_tokens=objective.context_tokens,
        answer_prefix=objective.answer_prefix,
        end_of_text=objective.end_of_text,
        max_new_tokens=objective.max_new_tokens,
    )


class LoraBench:
    """A `Workbench` over local models."""

    def __init__(
        self, base: BaseModel, pool: LoraPool, spec: MergeJobSpec, settings: Settings
    ) -> None:
        self._base = base
        self._spec = spec
        self._settings = settings
        self._space = LoraSpace(pool, spec.composition)
        self._exact = self._space if spec.composition == "exact" else LoraSpace(pool, "exact")
        self._evaluator = cache(self._make_evaluator)

    @property
    def base_hash(self) -> str:
        return self._base.content_hash

    def starts(self) -> Sequence[FloatArray]:
        return ()

    def check(self, metric: Metric, examples: Sequence[Example]) -> None:
        self._evaluator(self._space, metric).check(examples)

    def evaluator(self, metric: Metric) -> Evaluator:
        return self._evaluator(self._space, metric)

    def plain(self, metric: Metric) -> Evaluator:
        return self._evaluator(self._exact, metric)

    def merge(self, candidate: Candidate) -> StoredAdapter:
        output = self._spec.output
        adapter = merged_adapter(self._space, candidate, DTYPES[output.dtype or DTYPE], output.rank)
        return StoredAdapter(self, adapter)

    def stored_evaluator(self, adapter: MergedAdapter, metric: Metric) -> Evaluator:
        """Scores an adapter that is merged already."""
        return _AdapterEvaluator(self._evaluator(self._exact, metric), adapter)

    def write(self, adapter: MergedAdapter, folder: Path) -> None:
        """The adapter, and the whole checkpoint in a folder of its own if that was asked for."""
        adapter.write(folder, self._base.name)
        if self._spec.output.full_checkpoint:
            source = self._settings.bases[self._base.name]
            adapter.merge_into_checkpoint(source, folder / CHECKPOINT)

    def _make_evaluator(self, space: LoraSpace, metric: Metric) -> LocalEvaluator:
        return LocalEvaluator(self._base, space, metric, **scoring(self._spec, self._settings))


class StoredAdapter:
    """A `StoredModel`: an adapter rounded as it is written."""

    def __init__(self, bench: LoraBench, adapter: MergedAdapter) -> None:
        self._bench = bench
        self._adapter = adapter

    @property
    def rank(self) -> int:
        return self._adapter.rank

    def evaluator(self, metric: Metric) -> Evaluator:
        return self._bench.stored_evaluator(self._adapter, metric)

    def write(self, folder: Path) -> None:
        self._bench.write(self._adapter, folder)


class _AdapterEvaluator:
    """Scores one adapter, whatever candidate is said to stand for it."""

    def __init__(self, evaluator: LocalEvaluator, adapter: MergedAdapter) -> None:
        self._evaluator = evaluator
        self._adapter = adapter

    def width(self, examples: Sequence[Example]) -> int:
        return 1

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        return await self._evaluator.score_population(self._adapter.population(), examples)
