"""What a model folder says about itself without loading it. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evomerge.connectors.local.errors import BaseFolderError
from evomerge.merging.checkpoint import files
from evomerge.merging.checkpoint.errors import CheckpointError

# Tables of vectors and the vocabulary projection: two-dimensional, but nothing to adapt.
_TABLES = frozenset({"wte", "wpe", "shared", "lm_head", "embed_out"})


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
    with _as_base(folder):
        return files.content_hash(folder)


def model_files(folder: Path) -> list[Path]:
    """Config, tokenizer and weights, what of them there is, sorted by name.

    Raises:
        BaseFolderError: as for `weight_files`.
    """
    with _as_base(folder):
        return files.model_files(folder)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, sorted by name.

    Raises:
        BaseFolderError: no such folder, no config.json, or no safetensors file.
    """
    with _as_base(folder):
        return files.weight_files(folder)


def tensor_headers(file: Path) -> dict[str, dict[str, Any]]:
    """dtype, shape and offsets of every tensor of one safetensors file, by name.

    Raises:
        BaseFolderError: the file does not begin with a safetensors header.
    """
    with _as_base(file.parent):
        return files.read_header(file)[0]


@contextmanager
def _as_base(folder: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError as error:
        about = "" if error.file == folder else f"{error.file.name} "
        raise BaseFolderError(folder, about + error.reason) from error


def _is_table(module: str) -> bool:
    last = module.rpartition(".")[2]
    return last in _TABLES or "embed" in last
