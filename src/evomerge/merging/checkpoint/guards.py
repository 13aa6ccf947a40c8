"""What holds ELMs apart that must not be averaged or merged with each other.

Headers, configurations and tokenizers are compared; no weight is read, but for the content hash
of a seed (which is its lineage).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evomerge.merging.checkpoint.errors import (
    ArchitectureError,
    CheckpointError,
    KeysError,
    LineageError,
    TensorError,
    TensorShapeError,
    VocabularyError,
)
from evomerge.merging.checkpoint.files import Checkpoint
from evomerge.merging.checkpoint.lineage import read_lineage

# Fields of config.json that say how a file was written or is run, not what the model is.
_INCIDENTAL = frozenset(
    {"_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache"}
)
# Fields of tokenizer.json that the last call left there.
_LAST_CALL = frozenset({"truncation", "padding"})
_TOKENIZER = "tokenizer.json"
_OTHER_TOKENIZERS = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt")


def check_same_lineage(checkpoints: Sequence[Checkpoint]) -> str:
    """Refuse checkpoints that do not come from one seed.

    Returns:
        The content hash of the seed.

    Raises:
        LineageError: two seeds; names the first ELM that has another than the first of all.
        CheckpointError: an elm.json is damaged.
    """
    roots = [root_of(checkpoint) for checkpoint in checkpoints]
    for checkpoint, root in zip(checkpoints, roots, strict=True):
        if root != roots[0]:
            raise LineageError(
                checkpoint.name,
                checkpoints[0].name,
                "lineage",
                f"is of seed {root[:12]}, not {roots[0][:12]}; weights of two seeds have nothing "
                "in common",
            )
    return roots[0]


def root_of(checkpoint: Checkpoint) -> str:
    """The content hash of the seed that a checkpoint comes from; its own, if it is one.

    Raises:
        CheckpointError: its elm.json is damaged.
    """
    return read_lineage(checkpoint.folder).seed_hash or checkpoint.content_hash


def check_same_model(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse checkpoints of which any differs from the first in what makes the model.

    Raises:
        ArchitectureError: in a setting of config.json.
        KeysError, TensorShapeError: in a tensor's name, or its shape or kind.
        VocabularyError: in the tokenizer.
        TensorError: a tensor is of a float type that cannot be computed with.
        CheckpointError: a tokenizer.json is damaged.
    """
    first = checkpoints[0]
    vocabulary = _vocabulary(first.folder)
    for checkpoint in checkpoints:
        _check_dtypes(checkpoint)
        _check_vocabulary(checkpoint, first, vocabulary)
        _check_config(checkpoint, first)
        _check_tensors(checkpoint, first)


def check_mergeable(checkpoints: Sequence[Checkpoint]) -> str:
    """Both: the same model in all, of one seed, whose content hash is returned.

    Raises:
        MismatchError: one does not fit the first; see `check_same_model`, `check_same_lineage`.
        CheckpointError: a file is damaged.
    """
    check_same_model(checkpoints)
    return check_same_lineage(checkpoints)


def vocabulary_hash(folder: Path) -> str:
    """sha256 over what turns text into token ids: equal for folders that agree on it.

    Raises:
        CheckpointError: its tokenizer.json is damaged.
    """
    parts = sorted(_vocabulary(folder).items())
    # Bytes are those of tokenizers of other formats.
    text = json.dumps(parts, sort_keys=True, default=bytes.hex)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_dtypes(checkpoint: Checkpoint) -> None:
    for entry in checkpoint.tensors.values():
        if entry.dtype.startswith("F8"):
            file = checkpoint.folder / entry.shard
            raise TensorError(file, entry.name, f"is of dtype {entry.dtype}, too coarse to average")


def _check_config(checkpoint: Checkpoint, first: Checkpoint) -> None:
    own, other = _essence(checkpoint.config), _essence(first.config)
    for field in sorted(own.keys() | other.keys()):
        if own.get(field) != other.get(field):
            kind = VocabularyError if field == "vocab_size" else ArchitectureError
            raise kind(
                checkpoint.name,
                first.name,
                f"config.json {field}",
                f"is {own.get(field)!r}, not {other.get(field)!r}",
            )


def _essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is incidental, in configurations inside of it as well."""
    return {
        field: _essence(value) if isinstance(value, dict) else value
        for field, value in config.items()
        if field not in _INCIDENTAL
    }


def _check_tensors(checkpoint: Checkpoint, first: Checkpoint) -> None:
    for name, other in first.tensors.items():
        entry = checkpoint.tensors.get(name)
        if entry is None:
            raise KeysError(checkpoint.name, first.name, f"tensor {name!r}", "is missing")
        if entry.shape != other.shape:
            reason = f"is of shape {list(entry.shape)}, not {list(other.shape)}"
            raise TensorShapeError(checkpoint.name, first.name, f"tensor {name!r}", reason)
        if entry.dtype != other.dtype and not (entry.is_float and other.is_float):
            reason = f"is of dtype {entry.dtype}, not {other.dtype}"
            raise TensorShapeError(checkpoint.name, first.name, f"tensor {name!r}", reason)
    for name in checkpoint.tensors:
        if name not in first.tensors:
            raise KeysError(checkpoint.name, first.name, f"tensor {name!r}", "is there in it alone")


def _check_vocabulary(
    checkpoint: Checkpoint, first: Checkpoint, vocabulary: Mapping[str, object]
) -> None:
    own = _vocabulary(checkpoint.folder)
    for part in sorted(own.keys() | vocabulary.keys()):
        if own.get(part) != vocabulary.get(part):
            raise VocabularyError(
                checkpoint.name, first.name, f"tokenizer, {part}:", "is another one"
            )


def _vocabulary(folder: Path) -> dict[str, object]:
    """What turns text into token ids, part by part; nothing for a folder without tokenizer."""
    file = folder / _TOKENIZER
    if not file.is_file():
        others = (folder / name for name in _OTHER_TOKENIZERS)
        return {path.name: path.read_bytes() for path in others if path.is_file()}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(file, f"is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(file, "is no JSON object")
    return {field: value for field, value in content.items() if field not in _LAST_CALL}
