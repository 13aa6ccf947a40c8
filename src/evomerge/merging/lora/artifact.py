"""A merged model as a PEFT adapter folder: evaluated exactly as it is stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from evomerge.merging.layers import layer_of
from evomerge.merging.lora.adapter import WEIGHTS_FILE, tensor_name
from evomerge.merging.lora.checkpoint import merge_update
from evomerge.merging.lora.compress import compress, compress_dense
from evomerge.merging.lora.config import CONFIG_FILE
from evomerge.merging.lora.pool import LoraPool
from evomerge.merging.lora.population import Factors, Population
from evomerge.merging.lora.space import LoraSpace
from evomerge.merging.storing import written_whole
from evomerge.optimizers.candidate import Candidate


@dataclass(frozen=True, eq=False)
class MergedAdapter:
    """One candidate as one adapter.

    Attributes:
        modules: by full module name in the base: A (r, d_in) and B (d_out, r) in the dtype they
            are stored in; the update is B @ A, without a further scale.
    """

    modules: Mapping[str, tuple[Tensor, Tensor]]

    @property
    def rank(self) -> int:
        """The largest rank of a module."""
        return max(int(a.shape[0]) for a, _ in self.modules.values())

    def population(self) -> Population:
        """A population of one, made of the very values that are stored."""
        return Population(
            1,
            {
                module: Factors(a.float()[None], b.float()[None], None)
                for module, (a, b) in self.modules.items()
            },
        )

    def write(self, folder: Path, base_name: str) -> None:
        """Write the folder that `peft.PeftModel.from_pretrained` loads; all of it or nothing.

        The same adapter gives the same bytes. A folder that is there already is replaced.

        Args:
            folder: to be made.
            base_name: of the base, for the configuration.

        Raises:
            DiskFullError: there is no room.
            ArtifactWriteError: the system refused otherwise.
        """
        tensors = {
            tensor_name(module, factor): tensor.cpu().contiguous()
            for module, factors in self.modules.items()
            for factor, tensor in zip("AB", factors, strict=True)
        }
        config = json.dumps(self._config(base_name), indent=2, sort_keys=True)
        with written_whole(folder) as fresh:
            # Through memory: safetensors' own writer hides the system's error number.
            (fresh / WEIGHTS_FILE).write_bytes(save(tensors, metadata={"format": "pt"}))
            (fresh / CONFIG_FILE).write_text(config + "\n", encoding="utf-8")

    def merge_into_checkpoint(self, base_folder: Path, out_folder: Path) -> None:
        """Write the base with the update added to its weights, tensor by tensor.

        Raises:
            CheckpointError: the base has no readable safetensors, or a module does not fit.
            DiskFullError, ArtifactWriteError: as `write`.
        """
        merge_update(self.population(), base_folder, out_folder)

    def _config(self, base_name: str) -> dict[str, Any]:
        rank = self.rank
        others = {
            module: int(a.shape[0]) for module, (a, _) in self.modules.items() if a.shape[0] != rank
        }
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_name,
            "r": rank,
            # alpha = r everywhere, so that PEFT's factor alpha / r is one.
            "lora_alpha": rank,
            "rank_pattern": others,
            "alpha_pattern": others,
            "use_rslora": False,
            "use_dora": False,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "inference_mode": True,
            "modules_to_save": None,
            "target_modules": target_modules(self.modules),
        }


def compressed_adapter(
    updates: Mapping[str, Tensor], dtype: torch.dtype, rank: int
) -> MergedAdapter:
    """The adapter of a rank that is closest to updates of full rank.

    Args:
        updates: (d_out, d_in) each, by the name of the weight; at least one.
        dtype: that values are rounded to.
        rank: at least 1.

    Raises:
        ValueError: rank is below 1.
    """
    modules = {}
    for name, update in updates.items():
        a, b = compress_dense(update, rank)
        modules[name.removesuffix(".weight")] = (a.to(dtype), b.contiguous().to(dtype))
    return MergedAdapter(modules)


def merged_adapter(
    space: LoraSpace,
    candidate: Candidate,
    dtype: torch.dtype = torch.bfloat16,
    rank: int | None = None,
) -> MergedAdapter:
    """The adapter that a candidate means, of the kept experts only.

    Args:
        space: the pool and its composition. "exact" gives stacked factors with the weights folded
            into B, of the sum of the kept experts' ranks; "factor" gives the pool's rank.
        candidate: (G, N).
        dtype: that values are rounded to.
        rank: the most that a module may have; above it, it is compressed. None for no limit.

    Raises:
        CandidateError: the candidate does not fit the pool.
        ValueError: rank is below 1.
    """
    modules = {}
    for module, factors in space.realise([candidate]).factors.items():
        a, b = factors.A[0], factors.B[0]
        b = b if factors.scale is None else b * factors.scale[0]
        if rank is not None:
            a, b = compress(a, b, rank)
        # Cloned: a view would keep the whole pool's buffer alive.
        modules[module] = (a.to(dtype, copy=True), b.contiguous().to(dtype, copy=True))
    return MergedAdapter(modules or _nothing(space.pool, dtype))


def target_modules(modules: Mapping[str, object]) -> list[str]:
    """PEFT's names for the modules: their last parts if all layers have them, else in full."""
    layers = {layer for module in modules if (layer := layer_of(module)) is not None}
    tails: dict[str, set[int | None]] = {}
    for module in modules:
        tails.setdefault(module.rpartition(".")[2], set()).add(layer_of(module))
    if all(found == layers for found in tails.values()):
        return sorted(tails)
    return sorted(modules)


def _nothing(pool: LoraPool, dtype: torch.dtype) -> dict[str, tuple[Tensor, Tensor]]:
    """Zeros of rank one: PEFT has no adapter without modules."""
    return {
        module.name: (
            torch.zeros(1, module.d_in, dtype=dtype),
            torch.zeros(module.d_out, 1, dtype=dtype),
        )
        for module in pool.modules
    }
