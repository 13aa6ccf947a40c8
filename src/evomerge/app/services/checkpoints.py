"""Checkpoints looked at: seeds by themselves, ELMs held against their seed. Slow: use a thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evomerge.app.db.models import Forest
from evomerge.app.errors import InvalidRequestError
from evomerge.merging.checkpoint.errors import (
    CheckpointError,
    LineageError,
    MismatchError,
    VocabularyError,
)
from evomerge.merging.checkpoint.files import INDEX_FILE, Checkpoint, read_checkpoint
from evomerge.merging.checkpoint.guards import check_same_model, vocabulary_hash
from evomerge.merging.checkpoint.lineage import (
    LINEAGE_FILE,
    Lineage,
    Parent,
    read_lineage,
)

_SEED = "the seed"
# Of config.json, what people ask of a model first.
_TOLD = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings")


@dataclass(frozen=True)
class Seed:
    """What ELMs of a forest are held against.

    Attributes:
        folder: where it is.
        content_hash: of its files; the lineage of everything that comes from it.
        lineage: what its elm.json says.
        vocabulary_hash: of what makes tokens of text.
        architecture: what people ask of a model first.
    """

    folder: Path
    content_hash: str
    lineage: Lineage
    vocabulary_hash: str
    architecture: Mapping[str, Any]

    @classmethod
    def of(cls, row: Forest) -> Seed:
        """The seed of a forest that there is."""
        return cls(
            Path(row.seed_path),
            row.seed_hash,
            stored_lineage(row.seed_lineage),
            row.vocabulary_hash,
            row.architecture,
        )

    def as_elm(self) -> CheckedElm:
        """The seed itself: an ELM that has not been trained on its domain yet."""
        lineage = replace(self.lineage, seed_hash=self.content_hash, own_tokens=0)
        return CheckedElm(self.folder, self.content_hash, lineage)


@dataclass(frozen=True)
class CheckedElm:
    """What is kept of a checkpoint that may be an ELM of its forest."""

    folder: Path
    content_hash: str
    lineage: Lineage


def check_seed(folder: Path, param: str) -> Seed:
    """Read every byte of a checkpoint that is to be a seed.

    Raises:
        InvalidRequestError: it is no sound checkpoint, or comes from another seed.
    """
    with _refusing(param):
        checkpoint = read_checkpoint(folder, _SEED)
        lineage = read_lineage(folder)
        if lineage.seed_hash is not None:
            raise InvalidRequestError(
                f"{param}: its {LINEAGE_FILE} says that it comes from seed "
                f"{lineage.seed_hash[:12]}; a forest begins with a seed",
                param=param,
                code="other_lineage",
            )
        check_same_model([checkpoint])
        return Seed(
            folder,
            checkpoint.content_hash,
            lineage,
            vocabulary_hash(folder),
            _architecture(checkpoint),
        )


def check_elm(folder: Path, seed: Seed, param: str) -> CheckedElm:
    """Read every byte of a checkpoint that is to be an ELM beside others of this seed.

    Raises:
        InvalidRequestError: it is no sound checkpoint; or its lineage, tensors or tokenizer are
            not those of the seed.
    """
    with _refusing(param):
        checkpoint = read_checkpoint(folder)
        check_same_model([read_checkpoint(seed.folder, _SEED), checkpoint])
        lineage = read_lineage(folder)
        root = lineage.root(checkpoint.content_hash)
        if root != seed.content_hash:
            told = "" if (folder / LINEAGE_FILE).is_file() else f" (it has no {LINEAGE_FILE})"
            raise LineageError(
                checkpoint.name,
                _SEED,
                "lineage",
                f"is of seed {root[:12]}{told}, not {seed.content_hash[:12]}",
            )
    return CheckedElm(folder, checkpoint.content_hash, replace(lineage, seed_hash=root))


def stored_lineage(stored: Mapping[str, Any]) -> Lineage:
    """The lineage that a row holds."""
    parents = tuple(Parent(**parent) for parent in stored["parents"])
    return Lineage(**{**stored, "parents": parents})


def checkpoint_files(folder: Path) -> list[Path]:
    """Every file that belongs to a checkpoint: configuration, tokenizer, weights, lineage.

    Raises:
        CheckpointError: no checkpoint is there.
    """
    checkpoint = read_checkpoint(folder)
    own = [folder / name for name in (INDEX_FILE, LINEAGE_FILE)]
    files = [*checkpoint.companions(), *(folder / shard for shard in checkpoint.shards)]
    return sorted([*files, *(path for path in own if path.is_file())])


def _architecture(checkpoint: Checkpoint) -> dict[str, Any]:
    told = {name: checkpoint.config[name] for name in _TOLD if name in checkpoint.config}
    parameters = sum(entry.size for entry in checkpoint.tensors.values())
    dtypes = sorted({entry.dtype for entry in checkpoint.tensors.values()})
    return {**told, "parameters": parameters, "dtypes": dtypes, "bytes": checkpoint.nbytes}


@contextmanager
def _refusing(param: str) -> Iterator[None]:
    """Say of what is wrong with a checkpoint which field named it.

    Files are shown by name alone: not everything lies where clients need to know of.

    Raises:
        InvalidRequestError: something is.
    """
    try:
        yield
    except MismatchError as error:
        message = f"{param}: does not fit {error.other}: {error.key} {error.reason}"
        raise InvalidRequestError(message, param=param, code=_code(error)) from error
    except CheckpointError as error:
        raise InvalidRequestError(
            f"{param}: {error.file.name}: {error.reason}", param=param, code="invalid_checkpoint"
        ) from error
    except OSError as error:
        raise InvalidRequestError(
            f"{param}: cannot be read: {error.strerror}", param=param, code="invalid_checkpoint"
        ) from error


def _code(error: MismatchError) -> str:
    if isinstance(error, LineageError):
        return "other_lineage"
    return "other_vocabulary" if isinstance(error, VocabularyError) else "other_architecture"
