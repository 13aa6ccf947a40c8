"""Tiny expert language models: a seed, and copies of it whose weights were changed at random."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evomerge.merging.checkpoint.files import content_hash
from evomerge.merging.checkpoint.lineage import Lineage, Parent, read_lineage, write_lineage

WEIGHTS = "model.safetensors"


def make_elm(
    folder: Path, seed: Path, number: int, *, domain: str | None = None, strength: float = 0.05
) -> Path:
    """Write a child of `seed`: every float weight moved by a normal draw of that size."""
    shutil.copytree(seed, folder)
    generator = torch.Generator().manual_seed(number)
    moved = {
        name: (value.float() + strength * torch.randn(value.shape, generator=generator)).to(value)
        if value.is_floating_point()
        else value
        for name, value in tensors_of(seed).items()
    }
    rewrite(folder, moved)
    parent = content_hash(seed)
    root = read_lineage(seed).root(parent)
    write_lineage(
        folder,
        Lineage(root, domain, (Parent(parent, 1.0),), 200 + number, 100, "c" * 64, "reset"),
    )
    return folder


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint, from all of its shards."""
    return {
        name: value
        for file in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def rewrite(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Put other tensors into a checkpoint, each into the shard that had one of its name."""
    files = {name: file for file in folder.glob("*.safetensors") for name in load_file(file)}
    for file in set(files.values()):
        inside = {
            name: value.contiguous()
            for name, value in tensors.items()
            if files.get(name, folder / WEIGHTS) == file
        }
        save_file(inside, file, {"format": "pt"})


def retype(folder: Path, dtype: torch.dtype) -> Path:
    """Store a checkpoint's floats in another dtype."""
    rewrite(
        folder,
        {
            name: value.to(dtype) if value.is_floating_point() else value
            for name, value in tensors_of(folder).items()
        },
    )
    return folder


def set_config(folder: Path, **fields: object) -> Path:
    """Change fields of config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    return folder


def shard(folder: Path, shards: int) -> Path:
    """Store a checkpoint of one file in several, and their index."""
    tensors = tensors_of(folder)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    place = {
        name: f"model-{number % shards + 1:05}-of-{shards:05}.safetensors"
        for number, name in enumerate(names)
    }
    for file in set(place.values()):
        inside = {name: tensors[name] for name in names if place[name] == file}
        save_file(inside, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": place}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
