"""What a run starts from: a folder with the first weights, kept in its scratch folder.

From then on the run needs neither the forest nor the place where its tokenizer came from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.loading import load_causal_lm
from evomerge.connectors.local.training.errors import OptimizerStateError, RecipeError
from evomerge.connectors.local.training.saving import save_tensors
from evomerge.merging.checkpoint.lineage import OptimizerPolicy

_START = "start.json"
# Below an ELM's folder, for what lies beside its weights is not part of the model.
_OPTIMIZER, _TENSORS, _STATE = "optimizer", "state.safetensors", "state.json"


@dataclass(frozen=True)
class StartParent:
    """An ELM that the first weights are made of: name, content hash of its folder, share."""

    name: str
    content_hash: str
    weight: float


@dataclass(frozen=True)
class Start:
    """Where the first weights come from.

    Attributes:
        seed_hash: content hash of the seed of the lineage; None for a seed itself.
        parents: none for a seed.
        tokens: that the first weights have seen since the random start.
        policy: of the optimizer: "continue" or "reset"; None for a seed.
        schedule_done: tokens of the schedule that ancestors have done; 0 unless continued.
        posterior: of the forest's ELMs on the new domain, by name; empty where nobody asked.
        losses: of the starts that were compared, in nats a token on the sample; likewise.
    """

    seed_hash: str | None = None
    parents: tuple[StartParent, ...] = ()
    tokens: int = 0
    policy: OptimizerPolicy | None = None
    schedule_done: int = 0
    posterior: Mapping[str, float] | None = None
    losses: Mapping[str, float] | None = None


def write_start(folder: Path, start: Start) -> None:
    """Write start.json."""
    (folder / _START).write_text(json.dumps(asdict(start), indent=2), encoding="utf-8")


def read_start(folder: Path) -> Start:
    """What `write_start` wrote."""
    content = json.loads((folder / _START).read_text(encoding="utf-8"))
    parents = tuple(StartParent(**parent) for parent in content.pop("parents"))
    return Start(parents=parents, **content)


def load_model(folder: Path) -> PreTrainedModel:
    """A checkpoint's model in float32, on the CPU.

    Raises:
        BaseFolderError: it cannot be loaded.
    """
    try:
        return load_causal_lm(folder, torch.float32)
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise BaseFolderError(folder, f"cannot be loaded: {error}") from error


def check_context(folder: Path, block_tokens: int) -> None:
    """Refuse blocks that a model's context does not hold.

    Raises:
        RecipeError: they are longer; names both.
        BaseFolderError: config.json cannot be read.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BaseFolderError(folder, f"config.json cannot be read: {error}") from error
    context = config.get("max_position_embeddings")
    if isinstance(context, int) and block_tokens > context:
        reason = f"is more than the context of {context} tokens of {folder.name}"
        raise RecipeError("block_tokens", block_tokens, reason)


def has_optimizer(folder: Path) -> bool:
    """Whether an optimizer's state is kept beside a model."""
    return (folder / _OPTIMIZER / _STATE).is_file()


def copy_optimizer(folder: Path, out: Path) -> None:
    """The optimizer's state of one folder into another."""
    shutil.copytree(folder / _OPTIMIZER, out / _OPTIMIZER)


def write_optimizer(folder: Path, tensors: Mapping[str, Tensor], schedule_done: int) -> None:
    """Keep an optimizer's state beside a model.

    Args:
        folder: the model's.
        tensors: see `optimizer_tensors`.
        schedule_done: tokens of the schedule so far.
    """
    home = folder / _OPTIMIZER
    home.mkdir()
    save_tensors(tensors, home / _TENSORS)
    (home / _STATE).write_text(json.dumps({"schedule_done": schedule_done}), encoding="utf-8")


def read_optimizer(folder: Path) -> tuple[dict[str, Tensor], int]:
    """The tensors and the tokens of the schedule that `write_optimizer` kept.

    Raises:
        OptimizerStateError: they cannot be read.
    """
    home = folder / _OPTIMIZER
    try:
        state = json.loads((home / _STATE).read_text(encoding="utf-8"))
        return load_file(home / _TENSORS), int(state["schedule_done"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise OptimizerStateError(f"the state in {home} cannot be read: {error}") from error
