"""The evaluation loop of the Evo-Merging release (arXiv 2509.12951), rebuilt from its description.

Two stages of CMA-ES: first alpha in [0, 1], all experts at 1/N; then beta in [-1.5, 1.5], alpha
fixed. Only A is sparsified; A and B are summed apart. The loss is token cross-entropy over batches
of 15 that are shuffled anew for every candidate, plus 0.05 times the mean of the absolute values.

Form `as released`: each candidate's experts are read from disk, the merged adapter is written and
wrapped onto the base. (The release opens a file for every tensor; here each file is opened once a
candidate.) Form `fair`: every file is opened once in all, and the merged tensors are set into one
wrapped model. The searches are the same, draw for draw.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cma
import numpy as np
import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from shared import Clock, batch_loss, load_base, read_task, seed_all, write_report

WEIGHTS = "adapter_model.safetensors"
BATCH, BATCHES, L1, SIGMA = 15, 20, 0.05, 0.05
Tensors = dict[str, torch.Tensor]
Reader = Callable[[], Iterator[Tensors]]


def sparsified(tensor: torch.Tensor, alpha: float) -> torch.Tensor:
    """The ceil(alpha * numel) entries of largest magnitude, zero elsewhere."""
    kept = math.ceil(alpha * tensor.numel())
    if kept >= tensor.numel():
        return tensor
    flat = tensor.flatten()
    places = torch.topk(flat.abs(), kept).indices
    return torch.zeros_like(flat).index_copy_(0, places, flat[places]).view_as(tensor)


def merged(experts: Iterator[Tensors], alpha: np.ndarray, beta: np.ndarray) -> Tensors:
    """sum beta_i S(A_i) and sum beta_i B_i of every layer."""
    sums: Tensors = {}
    for tensors, keep, weight in zip(experts, alpha, beta, strict=True):
        for name, tensor in tensors.items():
            part = tensor.float()
            if ".lora_A." in name:
                part = sparsified(part, float(keep))
            if name in sums:
                sums[name].add_(part, alpha=float(weight))
            else:
                sums[name] = part * float(weight)
    return sums


class AsReleased:
    """Reads every expert, writes the merge and wraps it onto the base, for every candidate."""

    def __init__(self, task: Any) -> None:
        self._folders = list(task.experts.values())
        self._base = load_base(task.base)
        self._model = task.folder / "candidate"
        shutil.copytree(self._folders[0], self._model)

    def experts(self) -> Iterator[Tensors]:
        for folder in self._folders:
            yield load_file(folder / WEIGHTS)

    def loss(self, tensors: Tensors, score: Callable[[Any], float]) -> float:
        save_file(tensors, self._model / WEIGHTS, metadata={"format": "pt"})
        wrapped = PeftModel.from_pretrained(self._base, str(self._model)).eval()
        try:
            return score(wrapped)
        finally:
            self._base = wrapped.unload()


class Fair:
    """Reads every expert once, and sets the merges into one wrapped model."""

    def __init__(self, task: Any) -> None:
        folders = list(task.experts.values())
        self._tensors = [load_file(folder / WEIGHTS) for folder in folders]
        self._wrapped = PeftModel.from_pretrained(load_base(task.base), str(folders[0])).eval()

    def experts(self) -> Iterator[Tensors]:
        return iter(self._tensors)

    def loss(self, tensors: Tensors, score: Callable[[Any], float]) -> float:
        set_peft_model_state_dict(self._wrapped, tensors)
        return score(self._wrapped)


class Search:
    """The two stages over one form of the loop."""

    def __init__(self, task: Any, form: AsReleased | Fair) -> None:
        self._task = task
        self._form = form
        self._shuffle = random.Random(task.seed)
        self.evaluations = 0

    def minimise(
        self,
        evaluations: int,
        start: np.ndarray,
        bounds: tuple[float, float],
        candidate: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    ) -> tuple[np.ndarray, float]:
        """The best point of one stage, and its loss with its penalty."""
        population = min(self._task.population, evaluations)
        options = {"popsize": population, "bounds": list(bounds), "verbose": -9}
        strategy = cma.CMAEvolutionStrategy(
            start, SIGMA, {**options, "seed": self._task.seed + 1, "maxfevals": evaluations}
        )
        best, least, left = start, math.inf, evaluations
        while left >= population:
            points = strategy.ask()
            losses = [self._loss(*candidate(x)) + L1 * float(np.abs(x).mean()) for x in points]
            strategy.tell(points, losses)
            left -= len(points)
            place = int(np.argmin(losses))
            if losses[place] < least:
                best, least = np.array(points[place]), losses[place]
        return best, least

    def _loss(self, alpha: np.ndarray, beta: np.ndarray) -> float:
        self.evaluations += 1
        return self._form.loss(merged(self._form.experts(), alpha, beta), self._score)

    def _score(self, model: Any) -> float:
        rows = list(self._task.search)
        self._shuffle.shuffle(rows)
        starts = range(0, len(rows), BATCH)[:BATCHES]
        return float(np.mean([batch_loss(model, rows[at : at + BATCH])[0] for at in starts]))


def main() -> None:
    task = read_task()
    seed_all(task.seed)
    experts = len(task.experts)
    form = AsReleased(task) if task.options["form"] == "as released" else Fair(task)
    clock = Clock()
    search = Search(task, form)
    first = task.budget // 3
    average, ones = np.full(experts, 1 / experts), np.ones(experts)
    alpha, _ = search.minimise(first, ones, (0.0, 1.0), lambda x: (x, average))
    beta, least = search.minimise(task.budget - first, average, (-1.5, 1.5), lambda x: (alpha, x))
    seconds = clock.seconds()
    model = task.folder / "model"
    write_adapter(model, next(iter(task.experts.values())), merged(form.experts(), alpha, beta))
    write_report(
        task,
        model,
        "adapter",
        evaluations=search.evaluations,
        search_loss=least - L1 * float(np.abs(beta).mean()),
        search_seconds=seconds,
        packages=["cma", "peft", "torch", "transformers"],
    )


def write_adapter(folder: Path, like: Path, tensors: Tensors) -> None:
    """A PEFT folder with the configuration of an expert."""
    folder.mkdir()
    config = json.loads((like / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
