"""One plain training loop, for the base's weights and for adapters, and the losses of rows."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from evomerge.connectors.local.rows import Row

_WARMUP = 0.05
_SORTED = 8  # batches that are sorted by length together
_SCORED = 64  # rows of a forward without gradients


def train(
    model: Any,
    rows: Sequence[Row],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
    say: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """AdamW over whatever needs gradients, a short warm-up and a cosine to zero.

    Args:
        model: a causal LM, changed in place.
        rows: what is learned; the mean cross-entropy of their scored tokens falls.
        say: told the steps done and the loss of the last one, nats a token.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim > 1], "weight_decay": weight_decay},
        {"params": [w for w in weights if w.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    given = _batches(rows, batch, random.Random(seed))
    model.train()
    for step in range(1, steps + 1):
        losses = token_losses(model, next(given))[0]
        loss = losses.mean()
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        say(step, loss.item())
    model.eval()


def token_losses(model: Any, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Cross-entropies (t,) in nats of all scored tokens, and the row (t,) that each is of.

    No attention mask: padding stands on the right, where no real token sees it.
    """
    tokens = pad_sequence([torch.tensor(row.tokens) for row in rows], batch_first=True)
    places = torch.arange(1, tokens.shape[1])[None]
    first = torch.tensor([row.start for row in rows])[:, None]
    length = torch.tensor([len(row.tokens) for row in rows])[:, None]
    scored = (places >= first) & (places < length)
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    # The vocabulary projection is a third of the work: only where a scored token is predicted.
    losses = cross_entropy(model.lm_head(hidden[scored]), tokens[:, 1:][scored], reduction="none")
    return losses, scored.nonzero()[:, 0]


@torch.no_grad()
def row_losses(model: Any, rows: Sequence[Row]) -> NDArray[np.float64]:
    """(n,) mean cross-entropy of each row's scored tokens, nats a token."""
    means = []
    for start in range(0, len(rows), _SCORED):
        part = rows[start : start + _SCORED]
        losses, row = token_losses(model, part)
        sums = torch.zeros(len(part), dtype=torch.float64).index_add_(0, row, losses.double())
        means.append(sums / torch.tensor([each.scored for each in part]))
    return torch.cat(means).numpy()


def _rate(step: int, steps: int) -> float:
    warmup = max(1, round(_WARMUP * steps))
    return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)))


def _batches(rows: Sequence[Row], size: int, order: random.Random) -> Iterator[list[Row]]:
    """Without end: epochs in seeded orders, rows of a like length together."""
    while True:
        shuffled = order.sample(list(rows), len(rows))
        for start in range(0, len(rows), size * _SORTED):
            near = sorted(shuffled[start : start + size * _SORTED], key=lambda row: len(row.tokens))
            batches = [near[place : place + size] for place in range(0, len(near), size)]
            yield from order.sample(batches, len(batches))
