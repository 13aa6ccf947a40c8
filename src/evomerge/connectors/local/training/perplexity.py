"""Cross-entropy on the development documents of a domain."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from evomerge.connectors.local.training.progress import Tick
from evomerge.connectors.local.training.tokens import TokenCache
from evomerge.connectors.local.training.trainer import NO_TARGET, summed_loss
from evomerge.evaluation.corpus import Part


class EvaluationRows:
    """All tokens of a part in rows, each of them a target once.

    The first row begins with the end-of-text token, the last is filled with -1, which is no
    target. There is no row where the part has no document.

    Attributes:
        targets: tokens of the part.
    """

    def __init__(self, cache: TokenCache, part: Part, block_tokens: int) -> None:
        self._tokens = cache.tokens(part)
        self._length = block_tokens
        self.targets = len(self._tokens)

    def __len__(self) -> int:
        return -(-self.targets // self._length)

    def rows(self, first: int, last: int) -> NDArray[np.int64]:
        """(last - first, block_tokens + 1) int64."""
        return np.stack([self.row(place) for place in range(first, min(last, len(self)))])

    def row(self, place: int) -> NDArray[np.int64]:
        """(block_tokens + 1,) int64."""
        end = (place + 1) * self._length
        # Each document ends with an end-of-text token, the last one too.
        before = self._tokens[-1] if place == 0 else self._tokens[end - self._length - 1]
        own = self._tokens[end - self._length : end]
        row = np.full(self._length + 1, NO_TARGET, np.int64)
        row[0] = before
        row[1 : len(own) + 1] = own
        return row


def mean_loss(
    model: nn.Module, part: EvaluationRows, batch_rows: int, device: torch.device, tick: Tick
) -> float:
    """Mean cross-entropy in nats a token, in float32; exp of it is the perplexity."""
    total = 0.0
    training = model.training
    model.eval()
    with torch.inference_mode():
        for first in range(0, len(part), batch_rows):
            tick()
            rows = torch.from_numpy(part.rows(first, first + batch_rows)).to(device)
            total += float(summed_loss(model, rows))
    model.train(training)
    return total / part.targets
