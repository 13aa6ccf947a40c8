"""Write a checkpoint like another one, value by value: memory for a few stretches, no more."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evomerge.merging.checkpoint import kernels
from evomerge.merging.checkpoint.errors import TensorError
from evomerge.merging.checkpoint.files import (
    CONFIG_FILE,
    INDEX_FILE,
    Checkpoint,
    TensorEntry,
    header_bytes,
)
from evomerge.merging.checkpoint.kernels import Doubles
from evomerge.merging.checkpoint.lineage import Lineage, write_lineage
from evomerge.merging.checkpoint.tensors import DTYPES, STRETCH, Piece, pieces, rounded
from evomerge.merging.parallel import for_each
from evomerge.merging.storing import copy_file, written_whole

DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_DTYPE_FIELDS = ("dtype", "torch_dtype")

# Adds up values first..last-1 of a float tensor in float64, (last - first,), zeros at first.
Sum = Callable[[TensorEntry, int, int, Doubles], None]
# The bytes of those of a tensor that is no float.
Raw = Callable[[TensorEntry, int, int], memoryview]


@dataclass(frozen=True)
class Recipe:
    """What a new checkpoint is made of.

    Attributes:
        like: the checkpoint whose names, shapes, shards, configuration and tokenizer it takes.
        total: gives the values of float tensors.
        raw: gives those of all others.
        dtype: of its float tensors; None for those of `like`.
        lineage: its elm.json; None for none.
    """

    like: Checkpoint
    total: Sum
    raw: Raw
    dtype: torch.dtype | None = None
    lineage: Lineage | None = None


def write_checkpoint(recipe: Recipe, out: Path) -> None:
    """Write the whole folder, or nothing. A folder that is there already is replaced.

    The same recipe gives the same bytes, however many threads run.

    Raises:
        TensorError: a value is not finite, or above what the dtype holds.
        DiskFullError, ArtifactWriteError: the system refuses.
        ValueError: a dtype that checkpoints are not written in.
    """
    with written_whole(out) as fresh:
        write_into(recipe, fresh)


def write_into(recipe: Recipe, folder: Path) -> None:
    """The same into a folder that is there, and is not the checkpoint's last place.

    Raises:
        OSError: the system refuses.
        TensorError, ValueError: as `write_checkpoint`.
    """
    if recipe.dtype is not None and recipe.dtype not in DTYPE_NAMES:
        raise ValueError(
            f"dtype={recipe.dtype!r}: must be one of {', '.join(map(str, DTYPE_NAMES))}"
        )
    for path in recipe.like.companions():
        copy_file(path, folder / path.name)
    if recipe.dtype is not None:
        _write_config(recipe.like, recipe.dtype, folder / CONFIG_FILE)
    for shard in recipe.like.shards:
        _write_shard(recipe, shard, folder / shard)
    if len(recipe.like.shards) > 1 or (recipe.like.folder / INDEX_FILE).is_file():
        _write_index(recipe, folder / INDEX_FILE)
    if recipe.lineage is not None:
        write_lineage(folder, recipe.lineage)


def _write_shard(recipe: Recipe, shard: str, file: Path) -> None:
    entries = [entry for entry in recipe.like.tensors.values() if entry.shard == shard]
    new = [_stored(entry, recipe.dtype) for entry in entries]
    header, offsets = _header(new)
    work = [
        (piece, offset, target)
        for entry, target, offset in zip(entries, new, offsets, strict=True)
        for piece in pieces(entry)
    ]
    with _opened(file, offsets[-1] + new[-1].nbytes if new else len(header)) as number:
        _write_all(number, memoryview(header), 0)
        for_each(lambda item: _write_piece(recipe, number, *item), work)


def _stored(entry: TensorEntry, dtype: torch.dtype | None) -> TensorEntry:
    """The entry as it is written."""
    if dtype is None or not entry.is_float:
        return entry
    return replace(entry, dtype=DTYPE_NAMES[dtype])


def _header(entries: list[TensorEntry]) -> tuple[bytes, list[int]]:
    """The header of a shard, and where each of its tensors begins."""
    fields: dict[str, Mapping[str, Any]] = {}
    begins, at = [], 0
    for entry in entries:
        begins.append(at)
        end = at + entry.nbytes
        fields[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [at, end],
        }
        at = end
    header = header_bytes(fields)
    return header, [len(header) + begin for begin in begins]


def _write_piece(
    recipe: Recipe, number: int, piece: Piece, offset: int, target: TensorEntry
) -> None:
    """Compute a piece and put it where it belongs, `offset` being its tensor's place."""
    entry = piece.entry
    item = target.nbytes // target.size
    room = np.empty(min(STRETCH, piece.last - piece.first))
    for first, last in piece.stretches():
        if entry.is_float:
            total = room[: last - first]
            _add_up(recipe, entry, first, last, total, DTYPES[target.dtype])
            content = rounded(total, target.dtype).data
        else:
            content = recipe.raw(entry, first, last)
        _write_all(number, content, offset + first * item)


def _add_up(
    recipe: Recipe, entry: TensorEntry, first: int, last: int, total: Doubles, dtype: torch.dtype
) -> None:
    """The sum over one stretch, held to what the dtype can tell."""
    total[:] = 0.0
    recipe.total(entry, first, last, total)
    if not kernels.within(total, torch.finfo(dtype).max):
        file = recipe.like.folder / entry.shard
        raise TensorError(file, entry.name, f"would have values that {dtype} does not hold")


@contextmanager
def _opened(file: Path, size: int) -> Iterator[int]:
    """A new file of that size, to be filled at any place."""
    number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.truncate(number, size)
        yield number
    finally:
        os.close(number)


def _write_all(number: int, content: memoryview, offset: int) -> None:
    content = content.cast("B")
    while content:
        written = os.pwrite(number, content, offset)
        content, offset = content[written:], offset + written


def _write_config(like: Checkpoint, dtype: torch.dtype, file: Path) -> None:
    """The configuration, telling of the new dtype where it told of the old one."""
    config = dict(like.config)
    known = [field for field in _DTYPE_FIELDS if field in config] or [_DTYPE_FIELDS[0]]
    for field in known:
        config[field] = str(dtype).removeprefix("torch.")
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_index(recipe: Recipe, file: Path) -> None:
    entries = recipe.like.tensors.values()
    total = sum(_stored(entry, recipe.dtype).nbytes for entry in entries)
    index = {
        "metadata": {"total_size": total},
        "weight_map": {entry.name: entry.shard for entry in entries},
    }
    file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")
