"""Errors of training, one tree below LocalModelError. Needs no torch."""

from __future__ import annotations

from pathlib import Path

from evomerge.connectors.local.errors import LocalModelError
from evomerge.evaluation.errors import short


class TrainingError(LocalModelError):
    """Root of everything that connectors/local/training raises."""


class RecipeError(TrainingError, ValueError):
    """A field of a recipe or an architecture is out of range; names the field and the value."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}={short(value)}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason


class TooFewTokensError(TrainingError, ValueError):
    """A domain's documents do not fill one block; names the domain and both sizes."""

    def __init__(self, domain: str, part: str, tokens: int, needed: int) -> None:
        super().__init__(
            f"domain {domain!r}: its {part} documents give {tokens} tokens, a block needs {needed}"
        )
        self.domain = domain
        self.part = part
        self.tokens = tokens
        self.needed = needed


class ChangedCorpusError(TrainingError):
    """The documents of a domain changed while they were read."""

    def __init__(self, domain: str, path: Path) -> None:
        super().__init__(f"domain {domain!r}: {path} changed while it was read")
        self.domain = domain
        self.path = path


class ChangedRunError(TrainingError, ValueError):
    """What stands in the scratch folder was begun with other arguments; names the first."""

    def __init__(self, folder: Path, field: str, before: object, now: object) -> None:
        super().__init__(
            f"{folder} holds a run that was begun with {field}={short(before)}, not {short(now)}"
        )
        self.folder = folder
        self.field = field


class UnknownStartError(TrainingError, ValueError):
    """There is no such ELM to start from; names it and those there are."""

    def __init__(self, start: str, known: list[str]) -> None:
        names = ", ".join(repr(name) for name in known) or "(none)"
        super().__init__(f"start={short(start)}: the forest's ELMs are {names}")
        self.start = start
        self.known = known


class ElmsError(TrainingError, ValueError):
    """The ELMs given are no forest to branch from; names the field and why."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}={short(value)}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason


class OptimizerStateError(TrainingError, ValueError):
    """The optimizer cannot continue where a parent's stopped; says why."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"optimizer='continue': {reason}")
        self.reason = reason


class CheckpointStateError(TrainingError):
    """No checkpoint of a run can be read; names the newest and why."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}")
        self.folder = folder
        self.reason = reason


class DivergedError(TrainingError):
    """The loss of a step is not finite; names the step."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"step {step}: the loss is {loss}; a smaller learning_rate may help")
        self.step = step


class PlacementError(TrainingError, ValueError):
    """A run cannot compute where it is meant to; names the field, the value and why."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}={short(value)}: {reason}")
        self.field = field
        self.value = value
        self.reason = reason


class LostRankError(TrainingError):
    """One of a run's processes ended before the training; names it and its code."""

    def __init__(self, rank: int, code: int) -> None:
        super().__init__(f"process {rank} of the training ended with {code}")
        self.rank = rank
        self.code = code


class ProcessesError(TrainingError):
    """A run is not in the group of processes that it is meant to be in; names both sizes."""

    def __init__(self, processes: int, wanted: int) -> None:
        super().__init__(f"processes={wanted}: accelerate runs in a group of {processes}")
        self.processes = processes


class StoppedTrainingError(TrainingError):
    """The watch asked to stop; what was trained is saved in the scratch folder.

    Attributes:
        step: steps that are done and saved.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped as asked after step {step}")
        self.step = step
