"""The log-likelihood of answers under every candidate of a population."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evomerge.connectors.local.adapters import adapted, check_fits, part
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.batches import batches, width
from evomerge.connectors.local.errors import ScoringCancelledError
from evomerge.connectors.local.rows import Row
from evomerge.merging.lora.population import Population

# Logits of one chunk of answer positions at most, in bytes.
_LOGITS_BYTES = 64 * 2**20

Stopped = Callable[[], bool]


def never() -> bool:
    """A question whether to stop, always answered no."""
    return False


def answer_nll(
    base: BaseModel,
    population: Population,
    rows: Sequence[Row],
    *,
    batch_tokens: int,
    stopped: Stopped = never,
) -> NDArray[np.float64]:
    """Negative log-likelihood (nats) of each row's scored tokens under each candidate.

    As many candidates as `batch_tokens` allows run beside each other (see `width`). The same
    population and rows give the same bits; another cut of the population gives the same numbers
    up to the rounding of differently shaped products.

    Returns:
        (candidates, rows) float64, sums over tokens; NaN where the model gives NaN.

    Raises:
        UnknownModuleError, ShapeError: the population is for another base.
        ScoringCancelledError: `stopped` said so between two batches.
    """
    check_fits(base, population)
    lengths = [len(row.tokens) - 1 for row in rows]
    step = width(sum(lengths), batch_tokens)
    nll = np.empty((population.size, len(rows)))
    with base.running():
        for first in range(0, population.size, step):
            some = part(population, first, min(first + step, population.size))
            with adapted(base, some):
                for batch in batches(lengths, some.size, batch_tokens):
                    if stopped():
                        raise ScoringCancelledError("stopped between two batches")
                    picked = [rows[index] for index in batch]
                    nll[first : first + some.size, batch] = _batch_nll(base, some.size, picked)
    return nll


def _batch_nll(base: BaseModel, candidates: int, rows: Sequence[Row]) -> NDArray[np.float64]:
    """(candidates, rows) float64, from one forward."""
    tokens, row, position, target = _layout(rows)
    states = base.hidden(tokens.to(base.device).repeat(candidates, 1))
    states = states.view(candidates, len(rows), *states.shape[1:])
    place = states.device
    answers = states[:, row.to(place), position.to(place)].flatten(0, 1)
    nll = _token_nll(base, answers, target.repeat(candidates))
    begins = np.cumsum([0, *(each.scored for each in rows[:-1])])
    return np.add.reduceat(nll.reshape(candidates, -1), begins, axis=1)


def _layout(rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Padded input tokens (rows, length), and for every scored token: row, position, target.

    A row's last token is only ever a target, so it is no input. The state at a position
    predicts the token after it.
    """
    length = max(len(row.tokens) for row in rows) - 1
    inputs = np.zeros((len(rows), length), dtype=np.int64)
    for index, row in enumerate(rows):
        inputs[index, : len(row.tokens) - 1] = row.tokens[:-1]
    which = np.repeat(np.arange(len(rows)), [row.scored for row in rows])
    position = np.concatenate([np.arange(row.start - 1, len(row.tokens) - 1) for row in rows])
    target = np.concatenate([np.array(row.tokens[row.start :], dtype=np.int64) for row in rows])
    return (
        torch.from_numpy(inputs),
        torch.from_numpy(which),
        torch.from_numpy(position),
        torch.from_numpy(target),
    )


def _token_nll(base: BaseModel, states: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """-log p of each target, (n,) float64; the vocabulary projection in bounded chunks."""
    size = max(1, _LOGITS_BYTES // (4 * base.projection.out_features))
    found = []
    for some, wanted in zip(torch.split(states, size), torch.split(targets, size), strict=True):
        logits = base.logits(some)
        found.append(
            functional.cross_entropy(logits, wanted.to(logits.device), reduction="none").cpu()
        )
    nll: NDArray[np.float64] = torch.cat(found).double().numpy()
    return nll
