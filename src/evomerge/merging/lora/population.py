"""What a population of candidates means in weights: per module, low-rank factors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Factors:
    """Low-rank update of one linear module for P candidates.

    Attributes:
        A: (P or 1, k, d_in) float32; a leading 1 means shared by all candidates.
        B: (P or 1, d_out, k) float32; likewise.
        scale: (P, k) float32, or None for ones.

    The update of candidate p, in the sense W + update, is ``B_p @ diag(scale_p) @ A_p``.
    """

    A: Tensor
    B: Tensor
    scale: Tensor | None

    @property
    def rank(self) -> int:
        """k, the inner dimension."""
        return int(self.A.shape[1])


@dataclass(frozen=True, eq=False)
class Population:
    """The updates of P candidates.

    Attributes:
        size: P.
        factors: by full module name in the base, e.g. "model.layers.0.self_attn.q_proj".
            A module that is not a key is left as it is in the base.
    """

    size: int
    factors: Mapping[str, Factors]

    def update(self, module: str, index: int) -> Tensor:
        """The dense update of one module for one candidate, (d_out, d_in) float32.

        Raises:
            KeyError: the population does not touch the module.
            IndexError: `index` is not in 0..size-1.
        """
        if not 0 <= index < self.size:
            raise IndexError(f"candidate {index} of a population of {self.size}")
        factors = self.factors[module]
        a = factors.A[_of(factors.A, index)].to(torch.float32)
        b = factors.B[_of(factors.B, index)].to(torch.float32)
        if factors.scale is not None:
            b = b * factors.scale[index].to(torch.float32)
        return b @ a


def _of(stack: Tensor, index: int) -> int:
    """Where candidate `index` is in a stack whose leading dimension may be shared."""
    return index if stack.shape[0] > 1 else 0
