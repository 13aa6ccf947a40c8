"""Errors of whole checkpoints, one tree. Needs no torch, so that the service can catch them."""

from __future__ import annotations

from pathlib import Path

from evomerge.merging.errors import MergingError


class CheckpointError(MergingError, ValueError):
    """A checkpoint cannot be used; names the file or folder and why."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class LineageFileError(CheckpointError):
    """An elm.json is not what it must be."""


class TensorError(CheckpointError):
    """A tensor of a checkpoint cannot be used; names it."""

    def __init__(self, file: Path, tensor: str, reason: str) -> None:
        super().__init__(file, f"tensor {tensor!r} {reason}")
        self.tensor = tensor


class MismatchError(MergingError, ValueError):
    """An ELM does not belong with another; names both and the key that tells them apart."""

    def __init__(self, elm: str, other: str, key: str, reason: str) -> None:
        super().__init__(f"ELM {elm!r} does not fit {other!r}: {key} {reason}")
        self.elm = elm
        self.other = other
        self.key = key
        self.reason = reason


class ArchitectureError(MismatchError):
    """A setting of config.json differs."""


class KeysError(MismatchError):
    """A tensor is there in one of them only."""


class TensorShapeError(MismatchError):
    """A tensor is of another shape, or a number in one and a float in the other."""


class VocabularyError(MismatchError):
    """The tokenizers give different tokens."""


class LineageError(MismatchError):
    """They do not come from the same seed, so that their weights have nothing in common."""


class UnequalTensorError(MismatchError):
    """A tensor that is no float, and so cannot be averaged, has other values."""
