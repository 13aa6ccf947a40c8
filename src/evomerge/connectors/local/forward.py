"""The log-likelihood of answers under every candidate of a population."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evomerge.connectors.local.adapters import adapted, check_fits, part
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.batches import batches, lines, width
from evomerge.connectors.local.errors import ScoringCancelledError
from evomerge.connectors.local.layout import Layout, lay_out
from evomerge.connectors.local.rows import Row
from evomerge.connectors.local.stopping import Stopped, never
from evomerge.merging.lora.population import Population

# Logits of one chunk of answer positions at most, in bytes: few enough that the allocator gives
# the same memory again, instead of fresh pages that the system has to clear each time.
_LOGITS_BYTES = 16 * 2**20
# Tokens of a line that short rows share. More would pad less and attend to more (measured).
_LINE_TOKENS = 96


def answer_nll(
    base: BaseModel,
    population: Population,
    rows: Sequence[Row],
    *,
    batch_tokens: int,
    stopped: Stopped = never,
) -> NDArray[np.float64]:
    """Negative log-likelihood (nats) of each row's scored tokens under each candidate.

    As many candidates as `batch_tokens` allows run beside each other (see `width`), and short
    rows share lines where the base can keep them apart. The same population and rows give the
    same bits; another cut of the population gives the same numbers up to the rounding of
    differently shaped products.

    Returns:
        (candidates, rows) float64, sums over tokens; NaN where the model gives NaN, which may
        reach the rows of the same candidate that share a line.

    Raises:
        UnknownModuleError, ShapeError: the population is for another base.
        ScoringCancelledError: `stopped` said so between two batches.
    """
    check_fits(base, population)
    step = width(sum(len(row.tokens) - 1 for row in rows), batch_tokens)
    nll = np.empty((population.size, len(rows)))
    with base.running():
        for first in range(0, population.size, step):
            some = part(population, first, min(first + step, population.size))
            with adapted(base, some):
                for batch in cut(base, rows, some.size, batch_tokens):
                    if stopped():
                        raise ScoringCancelledError("stopped between two batches")
                    layout = lay_out([[rows[index] for index in line] for line in batch])
                    order = list(chain.from_iterable(batch))
                    nll[first : first + some.size, order] = _batch_nll(base, some.size, layout)
    return nll


def cut(
    base: BaseModel, rows: Sequence[Row], candidates: int, batch_tokens: int
) -> list[list[list[int]]]:
    """Indices of the rows of each line of each batch, `candidates` copies of which run at once."""
    lengths = [len(row.tokens) - 1 for row in rows]
    room = min(_LINE_TOKENS, batch_tokens // candidates) if base.packs else 0
    shared = lines(lengths, room)
    sums = [sum(lengths[row] for row in line) for line in shared]
    return [[shared[line] for line in batch] for batch in batches(sums, candidates, batch_tokens)]


def token_nll(base: BaseModel, candidates: int, layout: Layout) -> NDArray[np.float64]:
    """-log p (nats) of each scored token of a batch, (candidates, tokens) float64.

    One forward of `candidates` copies of the batch beside each other; to be called inside
    `base.running()`.
    """

    def beside_each_other(lines: Tensor) -> Tensor:
        return lines.to(base.device).repeat(candidates, 1)

    positions = None if layout.positions is None else beside_each_other(layout.positions)
    states = base.hidden(beside_each_other(layout.tokens), positions)
    states = states.view(candidates, -1, states.shape[-1])
    answers = states[:, layout.scored.to(states.device)].flatten(0, 1)
    nll = _target_nll(base, answers, layout.targets.repeat(candidates))
    return nll.reshape(candidates, -1)


def _batch_nll(base: BaseModel, candidates: int, layout: Layout) -> NDArray[np.float64]:
    """(candidates, rows) float64, from one forward."""
    begins = np.cumsum([0, *layout.counts[:-1]])
    return np.add.reduceat(token_nll(base, candidates, layout), begins, axis=1)


def _target_nll(base: BaseModel, states: Tensor, targets: Tensor) -> NDArray[np.float64]:
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
