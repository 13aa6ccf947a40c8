"""The tiny Llama with adapters by plain transformers: what the fake servers compute with.

Nothing of the package is used here, so that what it computes can be held against it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

Factors = Mapping[str, tuple[Tensor, Tensor]]
Delta = Mapping[str, Tensor]


def read_factors(folder: Path) -> Factors:
    """A and B of each module, the scale folded into B."""
    config = json.loads((folder / "adapter_config.json").read_text())
    assert not config.get("rank_pattern"), "vLLM takes one rank for all modules"
    scale = config["lora_alpha"] / config["r"]
    tensors = load_file(folder / "adapter_model.safetensors")
    found = {}
    for name, a in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            b = tensors[name.replace("lora_A", "lora_B")]
            assert a.shape[0] == config["r"]
            found[module] = (a.float(), b.float() * scale)
    return found


def delta(factors: Factors, weight: float = 1.0) -> Delta:
    """The update of each module, `weight` times."""
    return {module: weight * (b @ a) for module, (a, b) in factors.items()}


def linear(adapters: Sequence[tuple[float, Factors]]) -> Delta:
    """LoRAX's linear strategy: both factors are weighted and summed, each by itself."""
    modules = {module for _, factors in adapters for module in factors}
    merged = {}
    for module in modules:
        a = sum(weight * factors[module][0] for weight, factors in adapters)
        b = sum(weight * factors[module][1] for weight, factors in adapters)
        merged[module] = b @ a
    return merged


def added(deltas: Sequence[Delta]) -> Delta:
    """The sum of updates."""
    total: dict[str, Tensor] = {}
    for one in deltas:
        for module, update in one.items():
            total[module] = total.get(module, torch.zeros_like(update)) + update
    return total


class TinyModel:
    """Runs the base with an update of its weights; for several threads."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self._lock = threading.Lock()

    @torch.inference_mode()
    def logprobs(self, ids: Sequence[int], update: Delta) -> Tensor:
        """Log-probabilities of what follows each position, (len(ids), vocabulary) float32."""
        with self._lock:
            kept = {module: self.model.get_submodule(module).weight.clone() for module in update}
            try:
                for module, change in update.items():
                    self.model.get_submodule(module).weight.add_(change)
                logits = self.model(torch.tensor([list(ids)])).logits[0].float()
            finally:
                for module, weight in kept.items():
                    self.model.get_submodule(module).weight.copy_(weight)
        return torch.log_softmax(logits, dim=-1)

    def prompt_logprobs(self, ids: Sequence[int], update: Delta) -> list[float | None]:
        """Each token's own number; the first has none."""
        table = self.logprobs(ids, update)
        return [None] + [float(table[at, token]) for at, token in enumerate(ids[1:])]

    def greedy(self, ids: Sequence[int], update: Delta, most: int) -> list[tuple[int, float]]:
        """The likeliest next tokens with their numbers."""
        said: list[tuple[int, float]] = []
        while len(said) < most:
            last = self.logprobs([*ids, *(token for token, _ in said)], update)[-1]
            token = int(last.argmax())
            said.append((token, float(last[token])))
            if token == self.tokenizer.eos_token_id:
                break
        return said

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text).input_ids)

    def text(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))
