"""The ask/tell protocol over stages that run one after another, written once for every search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from evomerge.optimizers.base import Best
from evomerge.optimizers.candidate import Candidate, FloatArray
from evomerge.optimizers.errors import ProtocolError


class VectorStage(Protocol):
    """One stage's search over plain vectors."""

    @property
    def generation(self) -> int: ...

    @property
    def done(self) -> bool: ...

    def ask(self) -> FloatArray:
        """The next population, (population, dimension)."""
        ...

    def tell(self, population: FloatArray, losses: FloatArray) -> FloatArray:
        """Learn the losses of the population asked; return its penalised objectives."""
        ...


Bests: TypeAlias = Mapping[str, Best]


@dataclass(frozen=True)
class RunningStage:
    """A stage under way: its search, and the candidate that a vector of it stands for."""

    search: VectorStage
    candidate: Callable[[FloatArray], Candidate]


@dataclass(frozen=True)
class StagePlan:
    """A stage that has yet to begin.

    Attributes:
        name: the stage's name, unique in its search.
        evaluations: what it asks for at most.
        competes: whether its candidates may be the winner.
        begin: makes the stage from the bests of the stages before it.
    """

    name: str
    evaluations: int
    competes: bool
    begin: Callable[[Bests], RunningStage]


@dataclass(frozen=True)
class _Asked:
    vectors: FloatArray
    candidates: list[Candidate]


class StagedSearch:
    """An `Optimizer` that runs the planned stages in order."""

    def __init__(self, plans: Sequence[StagePlan]) -> None:
        self._plans = tuple(plans)
        self._number = 0
        self._asked: _Asked | None = None
        self._best: Best | None = None
        self._stage_bests: dict[str, Best] = {}
        self._begin()

    def _begin(self) -> None:
        self._running = self._plans[self._number].begin(self._stage_bests)

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(plan.name for plan in self._plans)

    @property
    def stage(self) -> str:
        return self._plans[self._number].name

    @property
    def generation(self) -> int:
        return self._running.search.generation

    @property
    def planned_evaluations(self) -> int:
        return sum(plan.evaluations for plan in self._plans)

    @property
    def baseline_evaluations(self) -> int:
        return sum(plan.evaluations for plan in self._plans if not plan.competes)

    @property
    def competing(self) -> frozenset[str]:
        return frozenset(plan.name for plan in self._plans if plan.competes)

    @property
    def done(self) -> bool:
        return self._running.search.done

    @property
    def best(self) -> Best | None:
        return self._best

    @property
    def stage_bests(self) -> dict[str, Best]:
        return dict(self._stage_bests)

    def ask(self) -> list[Candidate]:
        if self.done:
            raise ProtocolError("ask: the search is done")
        if self._asked is not None:
            raise ProtocolError("ask: the last population was not told yet")
        vectors = self._running.search.ask()
        self._asked = _Asked(vectors, [self._running.candidate(vector) for vector in vectors])
        return list(self._asked.candidates)

    def tell(self, candidates: Sequence[Candidate], losses: FloatArray) -> None:
        asked = self._asked
        if asked is None:
            raise ProtocolError("tell: nothing was asked")
        losses = np.asarray(losses, dtype=np.float64)
        _check_told(asked.candidates, candidates, losses)
        self._asked = None
        generation = self.generation
        objectives = self._running.search.tell(asked.vectors, losses)
        self._record(generation, candidates, losses, objectives)
        if self._running.search.done and self._number + 1 < len(self._plans):
            self._number += 1
            self._begin()

    def _record(
        self,
        generation: int,
        candidates: Sequence[Candidate],
        losses: FloatArray,
        objectives: FloatArray,
    ) -> None:
        plan = self._plans[self._number]
        for index in np.flatnonzero(np.isfinite(objectives)).tolist():
            scored = Best(
                candidate=candidates[index],
                loss=float(losses[index]),
                objective=float(objectives[index]),
                stage=plan.name,
                generation=generation,
                index=index,
            )
            stage_best = self._stage_bests.get(plan.name)
            if stage_best is None or scored.objective < stage_best.objective:
                self._stage_bests[plan.name] = scored
            if plan.competes and (self._best is None or scored.loss < self._best.loss):
                self._best = scored


def _check_told(asked: Sequence[Candidate], told: Sequence[Candidate], losses: FloatArray) -> None:
    if len(told) != len(asked):
        raise ProtocolError(f"tell: {len(told)} candidates for a population of {len(asked)}")
    if losses.shape != (len(asked),):
        raise ProtocolError(f"tell: losses of shape {losses.shape} for {len(asked)} candidates")
    for index, (mine, theirs) in enumerate(zip(asked, told, strict=True)):
        if mine is not theirs and not mine.agrees(theirs):
            raise ProtocolError(f"tell: candidate {index} is not the one that was asked")
