"""The contract of every search method: ask, tell, done, best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from evomerge.optimizers.candidate import Candidate, FloatArray


@dataclass(frozen=True)
class Best:
    """The best candidate of one objective.

    Attributes:
        candidate: the point itself.
        loss: its search loss, without any penalty.
        objective: the quantity its stage minimised (loss plus that stage's penalty). Objectives
            of different stages are never compared with each other.
        stage, generation, index: where it was asked.
    """

    candidate: Candidate
    loss: float
    objective: float
    stage: str
    generation: int
    index: int


class Optimizer(Protocol):
    """Proposes populations and learns from their losses.

    Deterministic in (parameters, seed, told losses): rebuilt with the same arguments and told
    the recorded losses, it asks the recorded candidates again. Touches no global state (numpy's
    global generator included), so that two instances never disturb each other. Not thread-safe.
    """

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of all stages in the order they run."""
        ...

    @property
    def stage(self) -> str:
        """Name of the stage that the next `ask` belongs to; of the last one when done."""
        ...

    @property
    def generation(self) -> int:
        """Number, from 0 within its stage, of the generation the next `ask` returns."""
        ...

    @property
    def planned_evaluations(self) -> int:
        """Evaluations that the whole search will ask for at most, all stages together."""
        ...

    @property
    def baseline_evaluations(self) -> int:
        """Of the planned evaluations, those of stages that do not compete."""
        ...

    @property
    def competing(self) -> frozenset[str]:
        """Names of the stages whose candidates may be the winner.

        The others only score what the winner is compared with.
        """
        ...

    @property
    def done(self) -> bool:
        """True once nothing more will be asked (budget spent, patience run out, converged)."""
        ...

    @property
    def best(self) -> Best | None:
        """The winner so far: the lowest unpenalised search loss of the competing stages.

        The first asked of equals; None before a finite loss of such a stage was told.
        """
        ...

    @property
    def stage_bests(self) -> dict[str, Best]:
        """The best of each stage by that stage's own penalised objective."""
        ...

    def ask(self) -> list[Candidate]:
        """The next population.

        Raises:
            ProtocolError: when done, or when the last population was not told yet.
        """
        ...

    def tell(self, candidates: Sequence[Candidate], losses: FloatArray) -> None:
        """Learn the unpenalised losses, shape (population,), of the population just asked.

        A loss that is NaN or infinite ranks last and never becomes the best.

        Raises:
            ProtocolError: nothing was asked, or lengths or candidates differ from what was.
        """
        ...
