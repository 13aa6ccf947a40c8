"""Populations made by hand from adapter folders, independent of merging/lora."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from safetensors.torch import load_file
from torch import Tensor

from evomerge.merging.lora.population import Factors, Population

Pairs = Mapping[str, tuple[Tensor, Tensor]]


def read_pairs(folder: Path) -> Pairs:
    """(A, scaled B) float32 of an adapter by module name; its update is B @ A."""
    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    pairs = {}
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            A = tensors[name].float()
            B = tensors[name.replace("lora_A", "lora_B")].float()
            pairs[module] = (A, B * config["lora_alpha"] / config["r"])
    return pairs


def exact_population(experts: Sequence[Pairs], beta: ArrayLike) -> Population:
    """sum_i beta_i B_i A_i for each row of beta (P, N); shared stacks and scales."""
    weights = torch.tensor(np.asarray(beta, float), dtype=torch.float32)
    factors = {}
    for module in sorted({module for pairs in experts for module in pairs}):
        held = [(i, pairs[module]) for i, pairs in enumerate(experts) if module in pairs]
        A = torch.cat([pair[0] for _, pair in held])
        B = torch.cat([pair[1] for _, pair in held], 1)
        scale = torch.cat([weights[:, i : i + 1].expand(-1, len(p[0])) for i, p in held], 1)
        factors[module] = Factors(A[None], B[None], scale.contiguous())
    return Population(len(weights), factors)


def factor_population(experts: Sequence[Pairs], beta: ArrayLike) -> Population:
    """(sum_i beta_i B_i)(sum_i beta_i A_i) for each row of beta (P, N); one rank for all."""
    weights = torch.tensor(np.asarray(beta, float), dtype=torch.float32)
    factors = {}
    for module in experts[0]:
        A = torch.stack([pairs[module][0] for pairs in experts])
        B = torch.stack([pairs[module][1] for pairs in experts])
        factors[module] = Factors(
            torch.einsum("pn,nki->pki", weights, A), torch.einsum("pn,nok->pok", weights, B), None
        )
    return Population(len(weights), factors)


def take(population: Population, index: int) -> Population:
    """One candidate of a population, as dense full-rank factors of its own."""
    return Population(
        1,
        {
            module: Factors(population.update(module, index)[None], _eye(population, module), None)
            for module in population.factors
        },
    )


def _eye(population: Population, module: str) -> Tensor:
    return torch.eye(population.factors[module].B.shape[1])[None]
