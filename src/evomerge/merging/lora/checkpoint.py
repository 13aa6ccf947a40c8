"""Add an update to the weights of a checkpoint, streaming: one tensor in memory at a time."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from evomerge.merging.errors import listed
from evomerge.merging.lora.errors import CheckpointError
from evomerge.merging.lora.population import Population
from evomerge.merging.storing import copy_file, written_whole

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
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
    shards = _shards(base_folder)
    headers = {shard: _read_header(base_folder / shard) for shard in shards}
    _check(population, base_folder, headers)
    with written_whole(out_folder) as fresh:
        for path in sorted(base_folder.iterdir()):
            if path.is_file() and path.suffix in _COPIED:
                copy_file(path, fresh / path.name)
        for shard, header in headers.items():
            with (base_folder / shard).open("rb") as source, (fresh / shard).open("wb") as target:
                _merge_shard(population, header, source, target)


def _merge_shard(
    population: Population, header: Mapping[str, Any], source: BinaryIO, target: BinaryIO
) -> None:
    """Copy a shard; header and offsets stay what they are, for shapes and dtypes do."""
    size = source.read(8)
    target.write(size)
    target.write(source.read(struct.unpack("<Q", size)[0]))
    by_offset = sorted(header.items(), key=lambda item: item[1]["data_offsets"][0])
    for name, entry in by_offset:
        start, end = entry["data_offsets"]
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module in population.factors:
            target.write(_merged(population, module, entry, source.read(end - start)))
        else:
            for length in _chunks(end - start):
                target.write(source.read(length))


def _merged(
    population: Population, module: str, entry: Mapping[str, Any], content: bytes
) -> memoryview:
    dtype = _DTYPES[entry["dtype"]]
    weight = torch.frombuffer(bytearray(content), dtype=dtype).view(entry["shape"])
    update = population.update(module, 0).cpu()
    merged = (weight.to(torch.promote_types(dtype, torch.float32)) + update).to(dtype)
    data: memoryview = merged.contiguous().view(torch.uint8).numpy().data
    return data


def _chunks(size: int) -> Iterable[int]:
    for start in range(0, size, _CHUNK):
        yield min(_CHUNK, size - start)


def _shards(folder: Path) -> list[str]:
    index = folder / _INDEX
    if not index.is_file():
        if not (folder / _SINGLE).is_file():
            raise CheckpointError(folder, f"has neither {_SINGLE} nor {_INDEX}")
        return [_SINGLE]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(index, f"is no index of shards: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(index, f"names the shard {name!r}, which is not in the folder")
    return sorted(names)


def _read_header(file: Path) -> dict[str, Any]:
    """The entries of a safetensors file by tensor name, in its format: dtype, shape, offsets."""
    try:
        with safe_open(file, framework="pt"):
            pass  # Opening checks the header against the size of the file.
    except (SafetensorError, OSError) as error:
        raise CheckpointError(file, f"is not a readable safetensors file: {error}") from error
    with file.open("rb") as stream:
        header = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    header.pop("__metadata__", None)
    return dict(header)


def _check(population: Population, base: Path, headers: Mapping[str, Mapping[str, Any]]) -> None:
    """Everything that could go wrong, before a byte is written."""
    entries = {name: entry for header in headers.values() for name, entry in header.items()}
    missing = [module for module in population.factors if f"{module}.weight" not in entries]
    if missing:
        raise CheckpointError(base, f"has no weight of its own for {listed(missing)}")
    for module, factors in population.factors.items():
        entry = entries[f"{module}.weight"]
        shape = [factors.B.shape[1], factors.A.shape[2]]
        if entry["shape"] != shape:
            raise CheckpointError(base, f"{module}.weight is {entry['shape']}, the update {shape}")
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(base, f"{module}.weight is of dtype {entry['dtype']}")
