"""Errors of the local models, one tree below ConnectorError."""

from __future__ import annotations

from pathlib import Path

from evomerge.connectors.base import ConnectorError


class LocalModelError(ConnectorError):
    """Root of everything that connectors/local raises."""


class BaseFolderError(LocalModelError, ValueError):
    """A folder is not a base model that can be loaded; names the folder and why."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"base model {folder}: {reason}")
        self.folder = folder
        self.reason = reason


class UnknownModuleError(LocalModelError, ValueError):
    """A population adapts a module that the base model does not have."""

    def __init__(self, module: str, base: str) -> None:
        super().__init__(f"module {module!r} is not a linear layer of base model {base!r}")
        self.module = module


class ShapeError(LocalModelError, ValueError):
    """The factors of a population do not fit the base's linear layer."""

    def __init__(self, module: str, given: tuple[int, int], expected: tuple[int, int]) -> None:
        super().__init__(
            f"module {module!r}: an update of shape {given} (d_out, d_in) does not fit "
            f"a weight of shape {expected}"
        )
        self.module = module


class WrongSeedError(LocalModelError, ValueError):
    """The model in memory is not the seed that candidates are differences to."""

    def __init__(self, base: str, seed: str) -> None:
        super().__init__(f"base model {base!r} is not the seed {seed!r}: other config or weights")
        self.base = base
        self.seed = seed


class ParameterError(LocalModelError, ValueError):
    """A parameter of a model is not what its files say; names it."""

    def __init__(self, parameter: str, base: str, reason: str) -> None:
        super().__init__(f"parameter {parameter!r} of model {base!r} {reason}")
        self.parameter = parameter


class ContextOverflowError(LocalModelError, ValueError):
    """A row does not fit into the context; names the row and both sizes."""

    def __init__(self, row: int, tokens: int, limit: int, what: str = "the row") -> None:
        super().__init__(f"row {row}: {what} takes {tokens} tokens, the context holds {limit}")
        self.row = row
        self.tokens = tokens
        self.limit = limit


class EmptyAnswerError(LocalModelError, ValueError):
    """A row has nothing to score: its answer gives no token."""

    def __init__(self, row: int) -> None:
        super().__init__(f"row {row}: completion gives no token to score")
        self.row = row


class ScoringCancelledError(LocalModelError):
    """Scoring was stopped between two batches, as asked."""
