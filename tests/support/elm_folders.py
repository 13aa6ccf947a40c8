"""Tiny ELMs of one seed on disk: the seed's weights with a little noise, and their elm.json."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from evomerge.connectors.local.headers import content_hash
from evomerge.merging.checkpoint.lineage import Lineage, Parent, write_lineage

WEIGHTS = "model.safetensors"
TOKENS = 100


def make_elm(folder: Path, seed: Path, number: int = 0, **lineage: Any) -> Path:
    """Write an ELM that was branched from a seed to `folder` and return it.

    Its domain is the folder's name; keywords replace fields of its lineage.
    """
    shutil.copytree(seed, folder)
    generator = torch.Generator().manual_seed(number)
    tensors = load_file(seed / WEIGHTS)
    for tensor in tensors.values():
        tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    root = content_hash(seed)
    branched = Lineage(root, folder.name, (Parent(root, 1.0),), TOKENS + number, number, None)
    write_lineage(folder, replace(branched, **lineage))
    return folder


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of a checkpoint, or take them out; names have __ for dots."""
    tensors = load_file(folder / WEIGHTS)
    for name, tensor in changes.items():
        if tensor is None:
            del tensors[name.replace("__", ".")]
        else:
            tensors[name.replace("__", ".")] = tensor
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
