"""Add an update to the weights of a checkpoint, streaming: one tensor in memory at a time."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import torch

from evomerge.merging.checkpoint.errors import CheckpointError
from evomerge.merging.checkpoint.files import Checkpoint, TensorEntry, read_checkpoint
from evomerge.merging.checkpoint.tensors import DTYPES
from evomerge.merging.errors import listed
from evomerge.merging.lora.population import Population
from evomerge.merging.storing import copy_file, written_whole

_CHUNK = 1 << 24
# What belongs to a model beside its weights: configuration, tokenizer, templates, texts.
_COPIED = frozenset({".json", ".txt", ".model", ".jinja", ".md"})


def merge_update(population: Population, base_folder: Path, out_folder: Path) -> None:
    """Write the base with a population's only update added; names, dtypes and ties stay.

    A weight tied to another is stored once, in the base and so here.

    Args:
        population: of size 1.
        base_folder: with model.safetensors, or shards and their index.
        out_folder: to be made; replaced if it is there.

    Raises:
        CheckpointError: the base has no readable safetensors, or a module of the update has no
            weight of its own in them, of its shape and of a float type.
        DiskFullError, ArtifactWriteError: writing failed; nothing was left behind.
    """
    base = read_checkpoint(base_folder)
    _check(population, base)
    with written_whole(out_folder) as fresh:
        for path in sorted(base_folder.iterdir()):
            if path.is_file() and path.suffix in _COPIED:
                copy_file(path, fresh / path.name)
        for shard in base.shards:
            entries = [entry for entry in base.tensors.values() if entry.shard == shard]
            with (base_folder / shard).open("rb") as source, (fresh / shard).open("wb") as target:
                _merge_shard(population, entries, source, target)


def _merge_shard(
    population: Population, entries: Iterable[TensorEntry], source: BinaryIO, target: BinaryIO
) -> None:
    """Copy a shard; header and offsets stay what they are, for shapes and dtypes do."""
    size = source.read(8)
    target.write(size)
    target.write(source.read(struct.unpack("<Q", size)[0]))
    for entry in entries:
        module = entry.name.removesuffix(".weight")
        if entry.name.endswith(".weight") and module in population.factors:
            target.write(_merged(population, module, entry, source.read(entry.nbytes)))
        else:
            for length in _chunks(entry.nbytes):
                target.write(source.read(length))


def _merged(population: Population, module: str, entry: TensorEntry, content: bytes) -> memoryview:
    dtype = DTYPES[entry.dtype]
    weight = torch.frombuffer(bytearray(content), dtype=dtype).view(entry.shape)
    update = population.update(module, 0).cpu()
    merged = (weight.to(torch.promote_types(dtype, torch.float32)) + update).to(dtype)
    data: memoryview = merged.contiguous().view(torch.uint8).numpy().data
    return data


def _chunks(size: int) -> Iterable[int]:
    for start in range(0, size, _CHUNK):
        yield min(_CHUNK, size - start)


def _check(population: Population, base: Checkpoint) -> None:
    """Everything that could go wrong, before a byte is written."""
    missing = [name for name in population.factors if f"{name}.weight" not in base.tensors]
    if missing:
        raise CheckpointError(base.folder, f"has no weight of its own for {listed(missing)}")
    for module, factors in population.factors.items():
        entry = base.tensors[f"{module}.weight"]
        shape = (factors.B.shape[1], factors.A.shape[2])
        if entry.shape != shape:
            reason = f"{entry.name} is {list(entry.shape)}, the update {list(shape)}"
            raise CheckpointError(base.folder, reason)
        if not entry.is_float:
            raise CheckpointError(base.folder, f"{entry.name} is of dtype {entry.dtype}")
