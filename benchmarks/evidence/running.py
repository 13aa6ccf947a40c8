"""One search as a job runs it: the product's optimizer, its evaluators, its stored model."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.evidence.methods import Method
from benchmarks.evidence.pools import Pool
from benchmarks.evidence.records import Record, key_of
from benchmarks.evidence.settings import Case

import evomerge
from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.settings import Settings
from evomerge.app.worker.method import build_optimizer
from evomerge.app.worker.rule_bench import adapter_bench
from evomerge.app.worker.workbench import StoredModel, Workbench
from evomerge.connectors.base import Evaluator, Scores, Usage
from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import CROSS_ENTROPY
from evomerge.evaluation.objective import FloatArray, Objective
from evomerge.merging.lora.pool import LoraPool, stack_folders
from evomerge.optimizers import PROBE, Candidate, Optimizer
from evomerge.optimizers.candidate import one_hot

_CODE = ("app/schemas", "app/worker", "connectors/local", "evaluation", "merging", "optimizers")
_LIBRARIES = ("cma", "numpy", "torch", "transformers")
# Places along a search at which its best so far is held against held-out rows.
_PLACES = 12
_DIGITS = 5


@dataclass(frozen=True)
class Sizes:
    """How much is asked.

    Attributes:
        evaluations: candidates of a search.
        search, held_out: rows of each task.
    """

    evaluations: int
    search: int
    held_out: int


@dataclass
class Bench:
    """One case under one seed: its rows, its pool, and what is known of its experts.

    Nothing is loaded before it is needed.
    """

    pool: Pool
    case: Case
    seed: int
    sizes: Sizes
    _alone: dict[tuple[bytes, tuple[Example, ...]], Scores] = field(default_factory=dict)

    @cached_property
    def search(self) -> list[list[Example]]:
        """Rows of each task to search on."""
        return [self.pool.search(t, self.sizes.search, self.seed) for t in self.case.tasks]

    @cached_property
    def held_out(self) -> list[list[Example]]:
        """Rows of each task to prove on."""
        return [self.pool.held_out(t, self.sizes.held_out) for t in self.case.tasks]

    @cached_property
    def stacked(self) -> LoraPool:
        """The experts."""
        return stack_folders([self.pool.experts[name] for name in self.case.experts])

    def run(self, method: Method, order: Sequence[str] | None) -> Record:
        """Search, store the winner and prove it.

        Raises:
            ValidationError, InvalidParameterError: the method is not one that a job could have.
        """
        fields = method.fields(order)
        spec = self.spec(fields)
        bench = self._models(spec)
        optimizer = build_optimizer(spec, self.stacked.size, (), self.case.experts)
        search = _Search(
            self, optimizer, bench, random.Random(self.seed) if method.reshuffled else None
        )
        search.run()
        best = optimizer.best
        if best is None:
            raise ValueError(f"{method.name}: no candidate has a finite loss")
        stored = bench.merge(best.candidate)
        proof = self._proof(stored.evaluator(CROSS_ENTROPY), best.candidate)
        return Record(
            key=self.key(method),
            pool=self.pool.name,
            setting=self.case.setting,
            case=self.case.name,
            method=method.name,
            seed=self.seed,
            experts=self.stacked.size,
            tasks=list(self.case.tasks),
            spec=fields,
            evaluations=search.evaluations,
            tokens=search.tokens,
            seconds=round(search.seconds, 2),
            curve=search.curve(),
            search_loss=_rounded(best.loss),
            losses=[_rounded(x) for x in proof.losses[0]],
            weights=proof.weights.tolist(),
            scores=self._scores(stored, best.candidate),
            sizes=[len(rows) for rows in self.held_out],
            winner=_winner(best.candidate, self.case.experts),
            code=code_digest(),
            versions={name: version(name) for name in _LIBRARIES},
        )

    def key(self, method: Method) -> str:
        """Of everything that the record depends on, but for the code.

        What an oracle chooses follows from the rest.
        """
        parts = [self.search, self.held_out]
        rows = [[(row.prompt, row.completion) for row in flat(part)] for part in parts]
        spec = self.spec(method.spec).model_dump(mode="json")
        case = (self.case.setting, self.case.name, self.case.experts, self.case.tasks)
        flags = (method.oracle, method.reshuffled)
        return key_of([self.pool.digest, case, self.seed, rows, spec, flags])

    def spec(self, fields: Mapping[str, Any]) -> MergeJobSpec:
        """The job that a user would post."""
        objective = {"datasets": [{"dataset": t} for t in self.case.tasks], **self.pool.encoding}
        job = {"pool": "pool", "seed": self.seed, "objective": objective, **fields}
        return MergeJobSpec.model_validate(job)

    def losses_alone(self) -> dict[str, float]:
        """The held-out loss of each expert alone, by name."""
        bench = self._models(self.spec({}))
        size = self.stacked.size
        asked = [one_hot(expert, size) for expert in range(size)]
        scores = self.score_alone(bench.plain(CROSS_ENTROPY), asked, self.held_out)
        means = objective_of(self.held_out).means(scores.losses, scores.weights)
        # What is broken comes last.
        known = np.where(np.isfinite(means), means, np.finfo(float).max)
        return dict(zip(self.case.experts, known.tolist(), strict=True))

    def score_alone(
        self, evaluator: Evaluator, asked: Sequence[Candidate], parts: Sequence[Sequence[Example]]
    ) -> Scores:
        """The losses of experts alone: the same for every method, so scored once for all."""
        rows = flat(parts)
        known = b"".join(c.alpha.tobytes() + c.beta.tobytes() for c in asked), tuple(rows)
        if known not in self._alone:
            self._alone[known] = asyncio.run(evaluator.score(asked, rows))
        return self._alone[known]

    def _proof(self, evaluator: Evaluator, winner: Candidate) -> Scores:
        return asyncio.run(evaluator.score([winner], flat(self.held_out)))

    def _scores(self, stored: StoredModel, winner: Candidate) -> list[float]:
        scores: list[float] = []
        for task, rows in zip(self.case.tasks, self.held_out, strict=True):
            metric: Metric = self.pool.metric(task)  # type: ignore[assignment]
            losses = asyncio.run(stored.evaluator(metric).score([winner], rows)).losses[0]
            # A model that is broken says nothing right.
            scores += [0.0 if np.isnan(loss) else _rounded(1 - loss) for loss in losses]
        return scores

    def _models(self, spec: MergeJobSpec) -> Workbench:
        """What a worker would make of the job."""
        base = _base(self.pool.base)
        settings = Settings(
            data_dir=Path(os.devnull), bases={base.name: self.pool.base}, device="cpu", threads=1
        )
        return adapter_bench(base, self.stacked, spec, settings)


class _Search:
    """Ask, score, tell, and what it cost."""

    def __init__(
        self, bench: Bench, optimizer: Optimizer, models: Workbench, draw: random.Random | None
    ) -> None:
        self._bench = bench
        self._optimizer = optimizer
        self._evaluator = models.evaluator(CROSS_ENTROPY)
        self._plain = models.plain(CROSS_ENTROPY)
        self._draw = draw
        self._bests: list[tuple[int, float, Candidate]] = []
        self.evaluations = 0
        self.tokens = 0
        self.seconds = 0.0

    def run(self) -> None:
        """To the end."""
        optimizer = self._optimizer
        while not optimizer.done:
            stage, asked = optimizer.stage, optimizer.ask()
            losses, usage = self._score(stage, asked)
            optimizer.tell(asked, losses)
            self.seconds += usage.seconds
            if stage in optimizer.competing:
                self.evaluations += len(asked)
                self.tokens += usage.tokens
            best = optimizer.best
            if best is not None and (not self._bests or best.loss < self._bests[-1][1]):
                self._bests.append((self.tokens, best.loss, best.candidate))

    def curve(self) -> list[list[float]]:
        """(tokens, search loss, held-out loss) at a dozen places at most, the last among them."""
        numbers = np.linspace(0, len(self._bests) - 1, min(_PLACES, len(self._bests)))
        chosen = [self._bests[round(number)] for number in numbers]
        rows, objective = flat(self._bench.held_out), objective_of(self._bench.held_out)
        points = []
        for tokens, loss, candidate in chosen:
            scores = asyncio.run(self._evaluator.score([candidate], rows))
            held = float(objective.means(scores.losses, scores.weights)[0])
            points.append([tokens, _rounded(loss), _rounded(held)])
        return points

    def _score(self, stage: str, asked: Sequence[Candidate]) -> tuple[FloatArray, Usage]:
        """(candidates,) losses on the same rows; reshuffled, each on as many of its own."""
        rows = self._bench.search
        if self._draw is not None:
            drawn = [[self._draw.choices(part, k=len(part)) for part in rows] for _ in asked]
            found = [self._mean([one], own) for one, own in zip(asked, drawn, strict=True)]
            usage = sum((usage for _, usage in found), Usage())
            return np.concatenate([losses for losses, _ in found]), usage
        if stage == PROBE:
            scores = self._bench.score_alone(self._plain, asked, rows)
            return objective_of(rows).means(scores.losses, scores.weights), scores.usage
        return self._mean(asked, rows)

    def _mean(
        self, asked: Sequence[Candidate], parts: Sequence[Sequence[Example]]
    ) -> tuple[FloatArray, Usage]:
        scores = asyncio.run(self._evaluator.score(asked, flat(parts)))
        return objective_of(parts).means(scores.losses, scores.weights), scores.usage


def flat(parts: Sequence[Sequence[Example]]) -> list[Example]:
    """All tasks' rows, task after task."""
    return [row for part in parts for row in part]


def objective_of(parts: Sequence[Sequence[Example]]) -> Objective:
    """The mean over tasks of each one's mean."""
    return Objective(tuple(len(part) for part in parts))


@lru_cache(maxsize=1)
def _base(folder: Path) -> BaseModel:
    return load_base(folder, threads=1)


@cache
def code_digest() -> str:
    """Of the code that searches, merges and scores."""
    root = Path(evomerge.__file__).parent
    files = sorted(path for name in _CODE for path in (root / name).rglob("*.py"))
    whole = sha256()
    for path in files:
        whole.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def _winner(candidate: Candidate, names: Sequence[str]) -> dict[str, float]:
    beta = candidate.beta.mean(axis=0)
    return {name: round(float(b), 4) for name, b in zip(names, beta, strict=True) if b}


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
