"""Make the shipped example: train its LoRA experts and write its target dataset.

    python benchmarks/make_example_pool.py            # writes examples/pool and examples/data

Each expert is seeded and trained on one CPU thread, so that a second run writes the same bytes;
as many are trained at once as there are cores. About half an hour on two; `--only NAME ...` trains
some. Needs `.[local,recipe]`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.example_tasks import EXPERTS, TARGET, Row, Task, rows_of, split
from examples.base import BASE_NAME, ensure_base

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Recipe:
    """How every expert is trained."""

    rank: int = 4
    lora_alpha: int = 8
    modules: tuple[str, ...] = ("k_proj", "o_proj", "q_proj", "v_proj")
    rows_seen: int = 800
    batch: int = 16
    learning_rate: float = 2e-3
    seed: int = 7


@dataclass(frozen=True)
class Encoded:
    """Token ids of a row and where its answer starts."""

    ids: torch.Tensor
    answer: int


def encode(tokenizer: Any, row: Row) -> Encoded:
    """Bare prompt, then " " + completion + end-of-text, tokenised apart as the service does."""
    prompt = tokenizer.encode(row.prompt, add_special_tokens=False)
    answer = tokenizer.encode(f" {row.completion}", add_special_tokens=False)
    return Encoded(torch.tensor([*prompt, *answer, tokenizer.eos_token_id]), len(prompt))


def answer_loss(model: Any, batch: Sequence[Encoded]) -> tuple[torch.Tensor, int]:
    """(summed cross-entropy of the answer tokens in nats, how many there are)."""
    ids = pad_sequence([e.ids for e in batch], batch_first=True)
    real = pad_sequence([torch.ones_like(e.ids) for e in batch], batch_first=True)
    starts = torch.tensor([e.answer for e in batch])[:, None]
    answer = (torch.arange(ids.shape[1])[None] >= starts) & real.bool()
    hidden = model.model(input_ids=ids, attention_mask=real).last_hidden_state
    # The vocabulary projection is a third of the work: only where an answer token is predicted.
    logits = model.lm_head(hidden[:, :-1][answer[:, 1:]])
    targets = ids[:, 1:][answer[:, 1:]]
    return cross_entropy(logits, targets, reduction="sum"), targets.numel()


@torch.no_grad()
def mean_loss(model: Any, rows: Sequence[Encoded], batch: int) -> float:
    """Cross-entropy per answer token over all rows, nats."""
    parts = [answer_loss(model, rows[i : i + batch]) for i in range(0, len(rows), batch)]
    return float(sum(loss for loss, _ in parts)) / sum(count for _, count in parts)


def batches(rows: Sequence[Encoded], recipe: Recipe) -> Iterator[list[Encoded]]:
    """Whole epochs in seeded orders until `rows_seen` rows have been given out."""
    order = random.Random(recipe.seed)
    for _ in range(epochs(rows, recipe)):
        shuffled = order.sample(list(rows), len(rows))
        for i in range(0, len(rows), recipe.batch):
            yield shuffled[i : i + recipe.batch]


def epochs(rows: Sequence[Any], recipe: Recipe) -> int:
    """Epochs that show about `rows_seen` rows."""
    return max(1, round(recipe.rows_seen / len(rows)))


def train(model: Any, rows: Sequence[Encoded], recipe: Recipe) -> None:
    """AdamW with a short warm-up and a cosine to zero, on answer tokens alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=0.0)
    steps = epochs(rows, recipe) * math.ceil(len(rows) / recipe.batch)
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min((s + 1) / warmup, 0.5 * (1 + math.cos(math.pi * s / steps))),
    )
    for batch in batches(rows, recipe):
        loss, count = answer_loss(model, batch)
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def make_expert(task: Task, base: Path, out: Path, recipe: Recipe) -> dict[str, Any]:
    """Train one expert, write its PEFT folder, and return its record."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    train_rows, held_rows = (
        [encode(tokenizer, row) for row in part] for part in split(rows_of(task))
    )
    before = mean_loss(model, held_rows, recipe.batch)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        target_modules=list(recipe.modules),
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config)
    train(model, train_rows, recipe)
    record = {
        "task": task.name,
        "train": len(train_rows),
        "held": len(held_rows),
        "epochs": epochs(train_rows, recipe),
        "held_ce_before": round(before, 4),
        "held_ce_after": round(mean_loss(model, held_rows, recipe.batch), 4),
        **{k: v for k, v in asdict(recipe).items() if k != "rows_seen"},
    }
    write_expert(peft_model.to(torch.bfloat16), task, record, out / task.name)
    return record


def write_expert(model: Any, task: Task, record: dict[str, Any], folder: Path) -> None:
    """The adapter as PEFT writes it, with a settled config, a README and the training record."""
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    # PEFT keeps the modules in a set, whose order changes from run to run.
    config["target_modules"] = sorted(config["target_modules"])
    config["base_model_name_or_path"] = BASE_NAME
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n")
    example = rows_of(task)[0]
    (folder / "README.md").write_text(
        f"# {task.name}\n\n"
        f"LoRA adapter over {BASE_NAME}, made by benchmarks/make_example_pool.py.\n\n"
        f"    {example.prompt.splitlines()[0]}\n"
        f"    {example.prompt.splitlines()[1]} {example.completion}\n\n"
        f"Cross-entropy per answer token on {record['held']} held-out rows: "
        f"{record['held_ce_before']:.2f} before, {record['held_ce_after']:.2f} after training on "
        f"{record['train']} rows for {record['epochs']} epochs.\n"
    )


def write_target(path: Path) -> None:
    """The target's dataset: JSONL rows {prompt, completion}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(row), ensure_ascii=False) for row in rows_of(TARGET)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def summary(record: dict[str, Any]) -> str:
    """One line about a trained expert."""
    return (
        f"{record['task']:14} {record['train']:4} rows, {record['epochs']} epochs, held-out "
        f"cross-entropy {record['held_ce_before']:.3f} -> {record['held_ce_after']:.3f}"
    )


def main() -> None:
    """Train what is asked for and say how good it became."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "examples")
    parser.add_argument("--only", nargs="*", help="names of the experts to train")
    args = parser.parse_args()
    tasks = [task for task in EXPERTS if not args.only or task.name in args.only]
    write_target(args.out / "data" / f"{TARGET.name}.jsonl")
    base = ensure_base()
    # Fresh interpreters: a forked torch may hang on the locks of its parent's threads.
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as processes:
        running = [
            processes.submit(make_expert, task, base, args.out / "pool", Recipe()) for task in tasks
        ]
        for done in as_completed(running):
            print(summary(done.result()), flush=True)


if __name__ == "__main__":
    main()
