"""The exact composition, sum_i beta_i B_i S_alpha_i(A_i), as factors stacked over the experts."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.merging.lora.pool import LoraPool, StackedModule
from evomerge.merging.lora.population import Factors
from evomerge.merging.lora.sparsify import keep_counts, sparse_copy
from evomerge.merging.parallel import for_each
from evomerge.optimizers.candidate import FloatArray

Rows = NDArray[np.int64]


class ExactComposer:
    """Stacks the factors of the experts that take part, for one group of layers at a time.

    The row numbers below count the N * r rows of a module's stacked A; those beyond an expert's
    rank, and those of experts without weight in every candidate, are left out.
    """

    def __init__(self, pool: LoraPool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._last: dict[int, tuple[bytes, dict[str, Tensor]]] = {}

    def compose(self, group: int, alpha: FloatArray, beta: FloatArray) -> dict[str, Factors]:
        """The factors of the modules of one group; alpha and beta are (P, N).

        Candidates that agree on alpha share one A, which is kept until another alpha comes;
        otherwise each gets its own.
        """
        used = (beta != 0.0).any(axis=0) & (alpha > 0.0).any(axis=0)
        rows_of = {
            module: rows
            for module in self._pool.modules
            if module.group == group and (rows := _used_rows(module, used)).size
        }
        if (alpha[:, used] == alpha[:1, used]).all():
            shared = self._shared(group, alpha[0])
            stacked = {module: _take(shared[module.name], rows) for module, rows in rows_of.items()}
        else:
            stacked = self._one_each(rows_of, alpha)
        return {
            module.name: Factors(
                A=stacked[module].float(),
                B=_take(module.Bt.flatten(0, 1)[None], rows).float().transpose(1, 2),
                scale=_scale(module, rows, beta),
            )
            for module, rows in rows_of.items()
        }

    def _shared(self, group: int, alpha: FloatArray) -> Mapping[str, Tensor]:
        """S_alpha of the stacked A of every module of a group, (1, N * r, d_in); alpha is (N,)."""
        modules = [module for module in self._pool.modules if module.group == group]
        if (alpha == 1.0).all():
            return {module.name: module.A.flatten(0, 1)[None] for module in modules}
        with self._lock:
            key = alpha.tobytes()
            if group not in self._last or self._last[group][0] != key:
                # Before the next is made, so that there are never two of them in memory.
                self._last.pop(group, None)
                self._last[group] = (key, self._sparsified(modules, alpha))
            return self._last[group][1]

    def _sparsified(self, modules: Sequence[StackedModule], alpha: FloatArray) -> dict[str, Tensor]:
        # A search over beta asks for one alpha alone: places by magnitude beside the copy would
        # be a quarter more of the pool's memory for the one time that they are of use.
        self._pool.forget_ranks()
        made = self._pool.reserve([tuple(module.A.flatten(1).shape) for module in modules])

        def sparsify(index: int) -> None:
            module = modules[index]
            sparse_copy(module.A.flatten(1), None, keep_counts(alpha, module.sizes), made[index])

        for_each(sparsify, range(len(modules)))
        return {
            module.name: stack.view(1, -1, module.d_in)
            for module, stack in zip(modules, made, strict=True)
        }

    def _one_each(
        self, rows_of: Mapping[StackedModule, Rows], alpha: FloatArray
    ) -> dict[StackedModule, Tensor]:
        """A of every candidate, (P, K, d_in)."""
        ranks = self._pool.magnitude_ranks()
        wanted = list(rows_of.items())
        made = self._pool.reserve([(len(alpha), rows.size, m.d_in) for m, rows in wanted])

        def sparsify(index: int) -> None:
            module, rows = wanted[index]
            values, places = module.A.flatten(1), ranks[module.name]
            whole = rows.size == values.shape[0] * module.rank
            spare = torch.empty_like(values)
            for own, keep in zip(made[index], keep_counts(alpha, module.sizes), strict=True):
                if whole:
                    sparse_copy(values, places, keep, own.view_as(values))
                else:
                    sparse_copy(values, places, keep, spare)
                    own.copy_(_take(spare.view(1, -1, module.d_in), rows)[0])

        for_each(sparsify, range(len(wanted)))
        return dict(zip(rows_of, made, strict=True))


def _used_rows(module: StackedModule, used: NDArray[np.bool_]) -> Rows:
    """Numbers, in rising order, of the rows of the experts in `used`, (K,)."""
    inside = np.arange(module.rank) < np.array(module.ranks)[:, None]
    return np.flatnonzero((inside & used[:, None]).ravel())


def _take(stack: Tensor, rows: Rows) -> Tensor:
    """Some rows of (1, N * r, d): a view where they follow each other, else a copy."""
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == rows.size:
        return stack[:, first : last + 1]
    return stack.index_select(1, torch.from_numpy(rows).to(stack.device))


def _scale(module: StackedModule, rows: Rows, beta: FloatArray) -> Tensor:
    """beta of the expert of each row, (P, K) float32."""
    of_row = np.ascontiguousarray(beta[:, rows // module.rank], dtype=np.float32)
    return torch.from_numpy(of_row).to(module.A.device)
