"""Adapters looked at: read whole, checked against their base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.app.errors import InvalidRequestError, NotPossibleError
from evomerge.app.services.bases import Bases
from evomerge.merging.lora.errors import AdapterError, TensorError

if TYPE_CHECKING:
    from evomerge.merging.lora.adapter import AdapterHeader


@dataclass(frozen=True)
class CheckedAdapter:
    """What is kept of a sound adapter."""

    folder: Path
    base: str
    content_hash: str
    info: Mapping[str, Any]


def check_adapter(folder: Path, base: str | None, bases: Bases) -> CheckedAdapter:
    """Read every byte of the adapter in `folder`. Slow: call it in a thread.

    Args:
        base: name of the base model, if the request gives one.

    Raises:
        InvalidRequestError: the adapter is refused, with the tensor or field at fault.
        UnavailableError: its base cannot be read.
        NotPossibleError: torch is not installed.
    """
    try:
        header = _read_header(folder)
        name = bases.choose(base, header.base_name or None)
        header.check_against(bases.shapes(name))
        adapter = header.load()
    except AdapterError as error:
        # The file's name alone: uploads lie where no client needs to know of.
        param = error.tensor if isinstance(error, TensorError) else None
        raise InvalidRequestError(
            f"{error.file.name}: {error.reason}", param=param, code="invalid_adapter"
        ) from error
    ranks = sorted({shape.rank for shape in header.shapes.values()})
    parameters = sum(shape.rank * (shape.d_in + shape.d_out) for shape in header.shapes.values())
    info = {
        "rank": ranks[-1],
        "ranks": ranks,
        "modules": len(header.shapes),
        "parameters": parameters,
    }
    return CheckedAdapter(folder, name, adapter.content_hash, info)


def _read_header(folder: Path) -> AdapterHeader:
    try:
        from evomerge.merging.lora.adapter import read_header
    except ModuleNotFoundError as error:
        raise NotPossibleError(
            f"experts need {error.name}, which is not installed: pip install 'evo-merging[local]'"
        ) from error
    return read_header(folder)
