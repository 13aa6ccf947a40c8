"""A checkpoint's folder as it lies on disk: shards, tensors and what they are, nothing loaded.

Reads headers only and needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.merging.checkpoint.errors import CheckpointError, TensorError
from evomerge.merging.checkpoint.lineage import LINEAGE_FILE

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
# Bytes of one value, by the format's names.
ITEM_BYTES: Mapping[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
# Those that can be averaged.
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})

_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 100 * 2**20  # the format's own limit
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
# What belongs to a model beside its weights: configuration, tokenizer, templates.
_COMPANIONS = frozenset({".json", ".txt", ".model", ".jinja", ".spm"})
# What tells of one checkpoint alone, and is not true of another made of it.
_OWN = frozenset({LINEAGE_FILE, INDEX_FILE, "manifest.json", "trainer_state.json"})


@dataclass(frozen=True)
class TensorEntry:
    """Where a tensor is and what it is.

    Attributes:
        name: in the checkpoint.
        dtype: by the format's name, such as "BF16".
        shape: of the tensor.
        shard: name of its file.
        offset: of its first byte in that file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard: str
    offset: int

    @property
    def size(self) -> int:
        """Values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * ITEM_BYTES[self.dtype]

    @property
    def is_float(self) -> bool:
        """Whether it can be averaged."""
        return self.dtype in FLOATS


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model folder whose headers were read.

    Attributes:
        name: what people call it.
        folder: where it is.
        config: its config.json.
        shards: names of its files, sorted.
        tensors: every tensor by name, shard after shard and in each as they lie on disk.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    shards: tuple[str, ...]
    tensors: Mapping[str, TensorEntry]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(entry.nbytes for entry in self.tensors.values())

    @cached_property
    def content_hash(self) -> str:
        """See `content_hash`; every byte is read, once."""
        return content_hash(self.folder)

    def companions(self) -> list[Path]:
        """The files that another checkpoint of the same model takes over as they are."""
        return [
            path
            for path in sorted(self.folder.iterdir())
            if path.is_file() and path.suffix in _COMPANIONS and path.name not in _OWN
        ]


def read_checkpoint(folder: Path, name: str | None = None) -> Checkpoint:
    """Read the headers of a checkpoint.

    Args:
        folder: holds config.json and model.safetensors, or shards and their index.
        name: what people call it; the folder's name by default.

    Raises:
        CheckpointError: no such checkpoint, pickled weights only, a damaged header or index.
        TensorError: a tensor is of a type or size that the format does not know.
    """
    weight_files(folder)
    shards = _shards(folder)
    tensors: dict[str, TensorEntry] = {}
    for shard in shards:
        for entry in _entries(folder / shard):
            if entry.name in tensors:
                raise TensorError(folder / shard, entry.name, "is in two shards")
            tensors[entry.name] = entry
    return Checkpoint(name or folder.name, folder, _config(folder), shards, tensors)


def content_hash(folder: Path) -> str:
    """sha256 over config, tokenizer and weights, independent of the folder's name and place.

    Reads every byte (about a second a gigabyte).

    Raises:
        CheckpointError: as for `weight_files`.
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
        CheckpointError: as for `weight_files`.
    """
    others = [folder / name for name in (CONFIG_FILE, *TOKENIZER_FILES)]
    return sorted([*(path for path in others if path.is_file()), *weight_files(folder)])


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, sorted by name.

    Raises:
        CheckpointError: no such folder, no config.json, or no safetensors file.
    """
    if not (folder / CONFIG_FILE).is_file():
        raise CheckpointError(folder, f"no {CONFIG_FILE} there")
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = next(_pickles(folder), None)
        found = f"{pickles.name} is a pickle and is never loaded; " if pickles else ""
        raise CheckpointError(folder, f"{found}weights must be *.safetensors")
    return files


def read_header(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The header of a safetensors file by tensor name, without its metadata, and its length.

    Raises:
        CheckpointError: the file does not begin with such a header.
    """
    with file.open("rb") as stream:
        start = stream.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else _MAX_HEADER + 1
        if length > min(_MAX_HEADER, file.stat().st_size):
            raise CheckpointError(file, "has no safetensors header")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise CheckpointError(file, "has a damaged header") from error
    if not isinstance(header, dict):
        raise CheckpointError(file, "has a damaged header")
    header.pop("__metadata__", None)
    return header, _LENGTH.size + length


def header_bytes(entries: Mapping[str, Mapping[str, Any]]) -> bytes:
    """A safetensors header, its length before it, padded so that the data begins aligned."""
    content = json.dumps(
        {"__metadata__": {"format": "pt"}, **entries}, separators=(",", ":")
    ).encode()
    content += b" " * (-len(content) % 8)
    return _LENGTH.pack(len(content)) + content


def _entries(file: Path) -> list[TensorEntry]:
    """The tensors of a shard as they lie there."""
    header, begin = read_header(file)
    room = file.stat().st_size - begin
    found = []
    for name, fields in header.items():
        try:
            start, end = map(int, fields["data_offsets"])
            entry = TensorEntry(
                name,
                str(fields["dtype"]),
                tuple(map(int, fields["shape"])),
                file.name,
                begin + start,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(file, f"has a damaged header: {name!r}") from error
        if entry.dtype not in ITEM_BYTES:
            raise TensorError(file, name, f"is of dtype {entry.dtype}, which is not known")
        if not 0 <= start <= end <= room or end - start != entry.nbytes:
            raise TensorError(file, name, "is not where the header says: the file is cut short")
        found.append(entry)
    return sorted(found, key=lambda entry: entry.offset)


def _shards(folder: Path) -> tuple[str, ...]:
    index = folder / INDEX_FILE
    if not index.is_file():
        if not (folder / SINGLE_FILE).is_file():
            raise CheckpointError(folder, f"has neither {SINGLE_FILE} nor {INDEX_FILE}")
        return (SINGLE_FILE,)
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(index, f"is no index of shards: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(index, f"names the shard {name!r}, which is not in the folder")
    return tuple(sorted(names))


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG_FILE
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(file, f"is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(file, "is no JSON object")
    return config


def _pickles(folder: Path) -> Iterator[Path]:
    for pattern in _PICKLES:
        yield from sorted(folder.glob(pattern))
