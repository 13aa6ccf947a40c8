"""Choosing tokens, and what was likely in their place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evomerge.connectors.local.engine_values import Draw

# Below this a temperature only says greedy, and dividing by it overflows.
_COLD = 1e-4


class Chooser:
    """Chooses the tokens of one answer, from the draw's own generator.

    One number is drawn a token, so that the choice depends on the model, the prompt and the seed
    alone.
    """

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._rng = np.random.default_rng(draw.seed)

    def __call__(self, logits: Tensor) -> int:
        """A token id, of logits (vocabulary,)."""
        if self._draw.temperature < _COLD:
            return int(logits.argmax())
        p = torch.softmax(logits.double() / self._draw.temperature, 0)
        order: Tensor | None = None
        if self._draw.top_p < 1:
            p, order = p.sort(descending=True, stable=True)
            # A token stays if those before it do not hold top_p yet; so the first one always does.
            p = p * ((p.cumsum(0) - p) < self._draw.top_p)
        mass = p.cumsum(0)
        point = torch.tensor(self._rng.random(), dtype=mass.dtype, device=mass.device) * mass[-1]
        place = int(torch.searchsorted(mass, point, right=True))
        # Rounding may put the point at the very end, behind the last token that has any mass.
        place = min(place, int(p.nonzero()[-1]))
        return place if order is None else int(order[place])


@dataclass(frozen=True)
class Likely:
    """log p of one token, and (token id, log p) of the likeliest, likeliest first."""

    logprob: float
    alternatives: tuple[tuple[int, float], ...]


def likelihoods(logits: Tensor, tokens: Tensor, alternatives: int) -> list[Likely]:
    """How likely tokens (n,) were under logits (n, vocabulary) float32."""
    whole = logits.logsumexp(1, keepdim=True)
    own = (logits.gather(1, tokens.to(logits.device)[:, None]) - whole)[:, 0].tolist()
    if not alternatives:
        return [Likely(each, ()) for each in own]
    best = logits.topk(min(alternatives, logits.shape[1]), dim=1)
    values = (best.values - whole).tolist()
    return [
        Likely(mine, tuple(zip(ids, row, strict=True)))
        for mine, ids, row in zip(own, best.indices.tolist(), values, strict=True)
    ]
