"""The tensors of one batch: rows in lines, and where their scored tokens are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evomerge.connectors.local.rows import Row


@dataclass(frozen=True, eq=False)
class Layout:
    """One batch of lines, each of one row or several, padded on the right.

    A row's last token is only ever a target, so it is no input. The state at a position predicts
    the token after it.

    Attributes:
        tokens: (lines, length) int64 inputs.
        positions: (lines, length) int64, of each token in its row; None where every line has one
            row, for then they are plain.
        scored: (n,) int64, the indices of the states that predict the scored tokens, in all
            lines laid end to end; line by line, row by row.
        targets: (n,) int64, the scored tokens.
        counts: how many of them each row has.
    """

    tokens: Tensor
    positions: Tensor | None
    scored: Tensor
    targets: Tensor
    counts: tuple[int, ...]


def lay_out(batch: Sequence[Sequence[Row]]) -> Layout:
    """Lay out the rows of each line."""
    length = max(sum(_inputs(row) for row in line) for line in batch)
    tokens = np.zeros((len(batch), length), dtype=np.int64)
    positions = np.zeros_like(tokens)
    scored, targets, counts = [], [], []
    for index, line in enumerate(batch):
        begin = 0
        for row in line:
            end = begin + _inputs(row)
            tokens[index, begin:end] = row.tokens[:-1]
            # To the end of the line: padding belongs to its last row.
            positions[index, begin:] = np.arange(length - begin)
            scored.append(np.arange(end - row.scored, end) + index * length)
            targets.append(np.array(row.tokens[row.start :], dtype=np.int64))
            counts.append(row.scored)
            begin = end
    return Layout(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(positions) if len(counts) > len(batch) else None,
        scored=torch.from_numpy(np.concatenate(scored)),
        targets=torch.from_numpy(np.concatenate(targets)),
        counts=tuple(counts),
    )


def _inputs(row: Row) -> int:
    return len(row.tokens) - 1
