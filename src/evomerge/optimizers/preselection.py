"""Which experts take part in a method: all of the pool, or the best few of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.optimizers.candidate import FloatArray
from evomerge.optimizers.errors import InvalidParameterError
from evomerge.optimizers.parameters import check_at_least

IndexArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Preselection:
    """The first `top_k` experts of an order.

    Attributes:
        experts: size N of the pool.
        top_k: how many take part; None for all of `order`, or of the pool.
        order: numbers of experts, best first; None for that of the losses that each has alone.

    Raises:
        InvalidParameterError: more are wanted than there are, or the order names an expert twice
            or one that there is not.
    """

    experts: int
    top_k: int | None = None
    order: Sequence[int] | None = None

    def __post_init__(self) -> None:
        order = self.order
        if order is not None:
            if not order or len(set(order)) != len(order):
                raise InvalidParameterError("order", list(order), "needs different experts")
            if not all(0 <= expert < self.experts for expert in order):
                reason = f"must be of numbers below {self.experts}, the size of the pool"
                raise InvalidParameterError("order", list(order), reason)
        if self.top_k is not None:
            check_at_least("top_k", self.top_k, 1)
            known = self.experts if order is None else len(order)
            if self.top_k > known:
                whose = "the pool has" if order is None else "order names"
                raise InvalidParameterError("top_k", self.top_k, f"{whose} {known} experts")

    @property
    def needs_losses(self) -> bool:
        """Whether it takes what each expert alone has lost to know who takes part."""
        return self.top_k is not None and self.order is None

    @property
    def size(self) -> int:
        """How many take part."""
        if self.top_k is not None:
            return self.top_k
        return self.experts if self.order is None else len(self.order)

    def members(self, losses: FloatArray | None) -> IndexArray:
        """Numbers of those who take part, rising, (size,).

        Args:
            losses: of each expert alone, (N,); read where `needs_losses`. What is not finite comes
                last, the first of equals first.
        """
        if self.order is not None:
            order = np.asarray(self.order, dtype=np.int64)
        elif not self.needs_losses:
            order = np.arange(self.experts)
        elif losses is None:
            raise ValueError("the experts alone have not been scored yet")
        else:
            known = np.where(np.isfinite(losses), losses, np.inf)
            order = np.argsort(known, kind="stable")
        return np.sort(order[: self.size])
