"""What a model folder says about itself without loading it. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evomerge.connectors.local.errors import BaseFolderError

_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 100 * 2**20  # the format's own limit
# Tables of vectors and the vocabulary projection: two-dimensional, but nothing to adapt.
_TABLES = frozenset({"wte", "wpe", "shared", "lm_head", "embed_out"})
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def linear_shapes(folder: Path) -> dict[str, tuple[int, int]]:
    """(d_out, d_in) of every linear layer of a base that an adapter may touch, by module name.

    Reads the headers of the safetensors files only (some kilobytes). Embeddings and the
    vocabulary projection are left out: adapters on them are not supported.

    Raises:
        BaseFolderError: no safetensors there, pickled weights only, or a damaged header.
    """
    shapes = {}
    for file in weight_files(folder):
        for name, tensor in tensor_headers(file).items():
            module, _, kind = name.rpartition(".")
            if kind == "weight" and len(tensor["shape"]) == 2 and not _is_table(module):
                d_out, d_in = tensor["shape"]
                shapes[module] = (int(d_out), int(d_in))
    return shapes


def content_hash(folder: Path) -> str:
    """sha256 over config, tokenizer and weights, independent of the folder's name and place.

    Reads every byte (about a second a gigabyte).

    Raises:
        BaseFolderError: as for `weight_files`.
    """
    whole = hashlib.sha256()
    for path in model_files(folder):
        with path.open("rb") as file:
            part = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.name}\0{part}\n".encode())
    return whole.hexdigest()


def model_files(folder: Path) -> list[Path]:
    """Config, tokenizer and weights, what of them there is, sorted by name.

    Raises:
        BaseFolderError: as for `weight_files`.
    """
    others = [folder / name for name in ("config.json", *TOKENIZER_FILES)]
    return sorted([*(path for path in others if path.is_file()), *weight_files(folder)])


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, sorted by name.

    Raises:
        BaseFolderError: no such folder, no config.json, or no safetensors file.
    """
    if not (folder / "config.json").is_file():
        raise BaseFolderError(folder, "no config.json there")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = next(_pickles(folder), None)
        found = f"{pickles.name} is a pickle and is never loaded; " if pickles else ""
        raise BaseFolderError(folder, f"{found}weights must be *.safetensors")
    return files


def tensor_headers(file: Path) -> dict[str, dict[str, Any]]:
    """dtype, shape and offsets of every tensor of one safetensors file, by name.

    Raises:
        BaseFolderError: the file does not begin with a safetensors header.
    """
    with file.open("rb") as stream:
        start = stream.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else _MAX_HEADER + 1
        if length > min(_MAX_HEADER, file.stat().st_size):
            raise BaseFolderError(file.parent, f"{file.name} has no safetensors header")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise BaseFolderError(file.parent, f"{file.name}: damaged header") from error
    if not isinstance(header, dict):
        raise BaseFolderError(file.parent, f"{file.name}: damaged header")
    header.pop("__metadata__", None)
    return header


def _is_table(module: str) -> bool:
    last = module.rpartition(".")[2]
    return last in _TABLES or "embed" in last


def _pickles(folder: Path) -> Iterator[Path]:
    for pattern in _PICKLES:
        yield from sorted(folder.glob(pattern))
