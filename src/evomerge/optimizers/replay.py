"""Bring a rebuilt optimizer to where the log of evaluations ends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from evomerge.optimizers.base import Optimizer
from evomerge.optimizers.candidate import Candidate
from evomerge.optimizers.errors import ReplayMismatchError


@dataclass(frozen=True)
class RecordedEvaluation:
    """One row of the log: a candidate and its unpenalised loss (NaN where it broke)."""

    stage: str
    generation: int
    index: int
    candidate: Candidate
    loss: float


@dataclass(frozen=True)
class OpenGeneration:
    """A generation that is asked and not told yet, of which some candidates were recorded.

    Attributes:
        stage, generation: which one.
        candidates: the whole population. Recorded ones are the recorded copies, because those
            are what was scored.
        losses: by index, of the recorded ones.
    """

    stage: str
    generation: int
    candidates: list[Candidate]
    losses: dict[int, float]

    @property
    def missing(self) -> list[int]:
        """Indices still to be scored, in order."""
        return [i for i in range(len(self.candidates)) if i not in self.losses]


def replay(optimizer: Optimizer, recorded: Iterable[RecordedEvaluation]) -> OpenGeneration | None:
    """Ask and tell every recorded generation again.

    Args:
        optimizer: freshly built with the arguments of the recorded search.
        recorded: the log in the order of the search (stage, generation, index).

    Returns:
        The last generation if it was recorded in part: asked of the optimizer, to be scored
        where `missing` and told with `candidates`. None if the optimizer is ready for `ask`.

    Raises:
        ReplayMismatchError: the optimizer asks for something else than was recorded.
    """
    open_generation: OpenGeneration | None = None
    for (stage, generation), rows in groupby(recorded, key=lambda r: (r.stage, r.generation)):
        if open_generation is not None:
            raise ReplayMismatchError(
                f"{_place(open_generation.stage, open_generation.generation)} lacks candidates "
                f"{open_generation.missing}, yet {_place(stage, generation)} is recorded"
            )
        reopened = _ask_again(optimizer, stage, generation, list(rows))
        if reopened.missing:
            open_generation = reopened
        else:
            losses = [reopened.losses[i] for i in range(len(reopened.candidates))]
            optimizer.tell(reopened.candidates, np.array(losses, dtype=np.float64))
    return open_generation


def _ask_again(
    optimizer: Optimizer, stage: str, generation: int, rows: Sequence[RecordedEvaluation]
) -> OpenGeneration:
    if optimizer.done:
        raise ReplayMismatchError(f"{_place(stage, generation)} is recorded, the search is done")
    if (optimizer.stage, optimizer.generation) != (stage, generation):
        raise ReplayMismatchError(
            f"{_place(stage, generation)} is recorded where the search is at "
            f"{_place(optimizer.stage, optimizer.generation)}"
        )
    candidates = optimizer.ask()
    losses: dict[int, float] = {}
    for row in rows:
        place = f"{_place(stage, generation)}, candidate {row.index}"
        if not 0 <= row.index < len(candidates):
            raise ReplayMismatchError(f"{place}: the population has {len(candidates)}")
        if row.index in losses:
            raise ReplayMismatchError(f"{place}: recorded twice")
        if not candidates[row.index].agrees(row.candidate):
            raise ReplayMismatchError(f"{place}: differs from the one that is asked")
        candidates[row.index] = row.candidate
        losses[row.index] = row.loss
    return OpenGeneration(stage, generation, candidates, losses)


def _place(stage: str, generation: int) -> str:
    return f"stage {stage!r} generation {generation}"
