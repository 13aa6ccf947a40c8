"""AdamW and its state as tensors by the names of the weights, so that it is kept without pickle."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from evomerge.connectors.local.training.errors import OptimizerStateError

_BETAS = (0.9, 0.95)
_EPSILON = 1e-8
_KINDS = ("exp_avg", "exp_avg_sq", "step")


def make_optimizer(model: nn.Module, weight_decay: float) -> AdamW:
    """AdamW over a model's weights; matrices decay, vectors (norms, biases) do not."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [each for each in weights if each.ndim >= 2], "weight_decay": weight_decay},
        {"params": [each for each in weights if each.ndim < 2], "weight_decay": 0.0},
    ]
    # The fused kernel reads each tensor once a step; the learning rate is set before each step.
    return AdamW(groups, lr=0.0, betas=_BETAS, eps=_EPSILON, fused=True)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Both moments and the steps of each weight, as `<kind>.<weight>`; none before a step."""
    return {
        f"{kind}.{name}": optimizer.state[weight][kind]
        for name, weight in model.named_parameters()
        if weight in optimizer.state
        for kind in _KINDS
    }


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Give an optimizer what `optimizer_tensors` took from another of the same model.

    Raises:
        OptimizerStateError: a tensor is missing or of another shape.
    """
    if not tensors:
        return
    for name, weight in model.named_parameters():
        for kind in _KINDS:
            found = tensors.get(f"{kind}.{name}")
            if found is None or (kind != "step" and found.shape != weight.shape):
                raise OptimizerStateError(f"the state has no {kind} for weight {name!r}")
        optimizer.state[weight] = {
            kind: tensors[f"{kind}.{name}"].to(weight.device, copy=True) for kind in _KINDS
        }
