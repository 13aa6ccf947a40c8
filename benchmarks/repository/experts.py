"""One expert: trained on its task, written as PEFT writes it, and held against the base."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.repository.settings import ExpertRecipe, Settings
from benchmarks.repository.tasks import SPLITS, Task
from benchmarks.repository.training import row_losses, train
from peft import LoraConfig, get_peft_model
from transformers import AutoTokenizer

from evomerge.connectors.local.loading import load_causal_lm
from evomerge.connectors.local.rows import RowEncoder
from evomerge.evaluation.example import Example
from evomerge.evaluation.significance import paired_p_value
from evomerge.merging.storing import written_whole

BASE_NAME = "repository-base"
RECORD = "training.json"
_MODULES = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")
_LEVEL = 0.01


@dataclass(frozen=True)
class Trained:
    """What became of an expert.

    Attributes:
        task: its name.
        rows: how many there are of each split.
        base_loss, expert_loss: on the task's held-out rows, mean of the rows' mean
            cross-entropies, nats a token.
        p_value: of both being equal, by a paired sign-flip test over the rows.
        steps: it was trained.
    """

    task: str
    rows: dict[str, int]
    base_loss: float
    expert_loss: float
    p_value: float
    steps: int

    @property
    def better(self) -> bool:
        """Whether it is measurably better than the base."""
        return self.expert_loss < self.base_loss and self.p_value < _LEVEL

    def __str__(self) -> str:
        return (
            f"{self.task}: held-out loss {self.base_loss:.3f} -> {self.expert_loss:.3f}"
            f"{'' if self.better else ', not better'}"
        )


def read_record(folder: Path) -> Trained:
    """What `make_expert` wrote beside the adapter."""
    return Trained(**json.loads((folder / RECORD).read_text(encoding="utf-8")))


def make_expert(
    task: Task, rows: dict[str, list[Example]], settings: Settings, base: Path, folder: Path
) -> Trained:
    """Train an expert and write its folder, whole, with its record.

    Args:
        rows: of each split.
        base: the base's folder.
        folder: the expert's, replaced if it is there.

    Raises:
        ArtifactWriteError: it cannot be written.
    """
    torch.use_deterministic_algorithms(True)
    seed = _seed(settings.seed, task)
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    encode = RowEncoder(tokenizer, settings.base.context)
    learned, held_out = (
        [encode.scored(row) for row in rows[split]] for split in ("train", "held_out")
    )
    model = load_causal_lm(base, torch.float32)
    before = row_losses(model, held_out)
    recipe = settings.expert
    adapter = get_peft_model(model, _lora(recipe))
    train(
        model,
        learned,
        steps=recipe.steps,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        weight_decay=0.0,
        seed=seed,
    )
    _round(model)
    after = row_losses(model, held_out)
    p_value = paired_p_value(after, before, np.ones(len(after)), seed=settings.seed)
    trained = Trained(
        task=task.name,
        rows={split: len(rows[split]) for split in SPLITS},
        base_loss=float(before.mean()),
        expert_loss=float(after.mean()),
        p_value=1.0 if p_value is None else p_value,
        steps=recipe.steps,
    )
    with written_whole(folder) as fresh:
        _write(adapter, trained, fresh)
    return trained


def _lora(recipe: ExpertRecipe) -> LoraConfig:
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        target_modules=list(_MODULES),
        task_type="CAUSAL_LM",
    )


def _round(model: Any) -> None:
    """The adapter's weights as they will be stored; computed with in float32."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.to(torch.bfloat16).to(torch.float32)


def _write(adapter: Any, trained: Trained, folder: Path) -> None:
    adapter.to(torch.bfloat16).save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # PEFT keeps the modules in a set, whose order changes from run to run.
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = BASE_NAME
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    record = json.dumps(asdict(trained), indent=2) + "\n"
    (folder / RECORD).write_text(record, encoding="utf-8")
    # PEFT's model card is a form that nobody has filled in.
    (folder / "README.md").write_text(
        f"# {trained.task}\n\nA LoRA adapter over {BASE_NAME}, made by "
        f"`python -m benchmarks.repository`.\n\n{trained}\n",
        encoding="utf-8",
    )


def _seed(seed: int, task: Task) -> int:
    digest = sha256(f"{seed}:{task.name}".encode()).digest()
    return int.from_bytes(digest[:4], "big")
