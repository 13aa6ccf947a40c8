"""What a training run tells while it goes on. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from evomerge.connectors.local.training.errors import StoppedTrainingError

# reading: corpora are hashed; tokenizing: a tokenizer is trained, the token cache is written;
# branching: the start is chosen; training: steps; evaluating: perplexity on development documents;
# saving: the ELM folder is written.
Phase: TypeAlias = Literal["reading", "tokenizing", "branching", "training", "evaluating", "saving"]


@dataclass(frozen=True)
class Progress:
    """Where a run is.

    Attributes:
        phase: see `Phase`.
        step: training steps done.
        steps: training steps of the whole run; 0 while that is not known.
        own_tokens: tokens trained on in this run.
        loss: mean cross-entropy of the last step in nats a token; None before the first.
        learning_rate: of the last step; None before the first.
    """

    phase: Phase
    step: int = 0
    steps: int = 0
    own_tokens: int = 0
    loss: float | None = None
    learning_rate: float | None = None


class Watch(Protocol):
    """Is told the progress after every step, before the first, and between pieces of the rest."""

    def __call__(self, progress: Progress) -> bool:
        """True to stop now: the state is saved, then StoppedTrainingError is raised."""
        ...


Tick: TypeAlias = Callable[[], None]


def unwatched(progress: Progress) -> bool:
    """The watch of nobody."""
    return False


def ticking(watch: Watch, phase: Phase, step: int = 0, steps: int = 0) -> Tick:
    """A call that tells `watch` the phase, between the pieces of work that are no steps.

    The call raises StoppedTrainingError when it is asked to stop.
    """

    def tick() -> None:
        if watch(Progress(phase, step=step, steps=steps)):
            raise StoppedTrainingError(step)

    return tick
