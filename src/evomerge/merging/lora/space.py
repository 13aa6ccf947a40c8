"""What a candidate means over a pool of LoRA adapters: `factor` or `exact` composition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from evomerge.merging.candidates import stacked
from evomerge.merging.lora.exact import ExactComposer
from evomerge.merging.lora.pool import LoraPool
from evomerge.merging.lora.population import Factors, Population
from evomerge.merging.lora.sparsify import keep_counts, sparse_sum
from evomerge.merging.parallel import for_each
from evomerge.optimizers.candidate import Candidate, FloatArray

Composition = Literal["factor", "exact"]


class LoraSpace:
    """Realises candidates over a pool.

    With A_i and B_i the factors of expert i (the scale folded into B_i) and S as in `sparsify`:

    - "factor" (Evo-Merging, equations of both stages): A = sum_i beta_i S_alpha_i(A_i) and
      B = sum_i beta_i B_i at the largest rank; one beta enters both factors, so that cross terms
      B_i A_j appear and the sign of a single expert has no effect.
    - "exact": the update is sum_i beta_i B_i S_alpha_i(A_i), as stacked factors with the betas
      for scale; no cross terms, a true sign.

    Several spaces may share a pool. Safe to call from several threads.

    Args:
        pool: the experts.
        composition: how they are put together.
    """

    def __init__(self, pool: LoraPool, composition: Composition) -> None:
        self.pool = pool
        self.composition = composition
        self._composer = ExactComposer(pool)

    def realise(self, candidates: Sequence[Candidate]) -> Population:
        """The updates of some candidates, (G, N) each, in float32.

        The same candidates give the same bits, however many threads run. Modules in which no
        expert has any weight are left out. With "exact", candidates of differing alpha need a
        copy of the kept experts' A each; those that agree share one, which stays in memory until
        another alpha comes.

        Raises:
            CandidateError: no candidate, a shape that does not fit the pool, or a value that is
                not finite or outside of alpha's range.
        """
        alpha, beta = stacked(candidates, self.pool.groups, self.pool.size)
        build = self._factor if self.composition == "factor" else self._exact
        return Population(len(candidates), build(alpha, beta))

    def _factor(self, alpha: FloatArray, beta: FloatArray) -> dict[str, Factors]:
        modules = [m for m in self.pool.modules if beta[:, m.group].any()]
        ranks = self.pool.magnitude_ranks() if (alpha < 1.0).any() else {}
        # B knows beta alone: in stage 1, where all candidates have the same, they share one.
        counts = [1 if (b == b[:1]).all() else len(b) for b in np.moveaxis(beta, 1, 0)]
        A = self.pool.reserve([(len(alpha), m.rank, m.d_in) for m in modules])
        transposed = self.pool.reserve([(counts[m.group], m.rank, m.d_out) for m in modules])

        def combine(index: int) -> None:
            module = modules[index]
            weights = beta[:, module.group]
            keep = keep_counts(alpha[:, module.group], module.sizes)
            places = ranks[module.name] if (keep < module.sizes).any() else None
            a, b = A[index].flatten(1), transposed[index].flatten(1)
            sparse_sum(module.A.flatten(1), places, keep, weights, a)
            sparse_sum(module.Bt.flatten(1), None, keep, weights[: len(b)], b)

        for_each(combine, range(len(modules)))
        return {
            module.name: Factors(a.float(), b.float().transpose(1, 2), None)
            for module, a, b in zip(modules, A, transposed, strict=True)
        }

    def _exact(self, alpha: FloatArray, beta: FloatArray) -> dict[str, Factors]:
        factors: dict[str, Factors] = {}
        for group in range(self.pool.groups):
            factors |= self._composer.compose(group, alpha[:, group], beta[:, group])
        return factors
