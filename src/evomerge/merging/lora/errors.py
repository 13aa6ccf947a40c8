"""Errors of the LoRA rooms, one tree. Needs no torch, so that the service can catch them."""

from __future__ import annotations

from pathlib import Path

from evomerge.merging.errors import MergingError


class LoraError(MergingError):
    """Root of everything that merging/lora raises."""


class AdapterError(LoraError, ValueError):
    """An adapter folder cannot be used; names the file and why."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class AdapterFileError(AdapterError):
    """A file of the adapter is missing, unreadable or not of its format."""


class PickleFileError(AdapterFileError):
    """The weights are a pickle, which could run code when read; only safetensors are read."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, "is a pickle; only safetensors are read, convert it first")


class AdapterConfigError(AdapterError):
    """A field of adapter_config.json is missing, malformed or asks for what is not supported."""

    def __init__(self, file: Path, field: str, value: object, reason: str) -> None:
        super().__init__(file, f"{field}={_short(value)}: {reason}")
        self.field = field
        self.value = value


class TensorError(AdapterError):
    """A tensor of the adapter cannot be used; names it."""

    def __init__(self, file: Path, tensor: str, reason: str) -> None:
        super().__init__(file, f"tensor {tensor!r} {reason}")
        self.tensor = tensor


class BaseMismatchError(TensorError):
    """The adapter does not fit the base: a module is not there, or has another shape."""


class PoolError(LoraError, ValueError):
    """Adapters cannot be stacked as asked; names the argument and the value."""

    def __init__(self, field: str, value: object, reason: str) -> None:
        super().__init__(f"{field}={_short(value)}: {reason}")
        self.field = field
        self.value = value


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
