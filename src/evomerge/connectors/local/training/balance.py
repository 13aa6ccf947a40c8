"""Batches balanced over domains: equal tokens of each, within one block."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.connectors.local.training.blocks import Blocks, ShuffledBlocks


class BalancedBatches:
    """The batches of a run. Row r of the run, from 0, is of domain r modulo their number.

    After any number of rows, no domain has given more than one block more than another, however
    many documents each has; a small domain is read more often.
    """

    def __init__(self, domains: Sequence[Blocks], batch_blocks: int, seed: int) -> None:
        """Domains in the order of their names, whatever order they are given in."""
        ordered = sorted(domains, key=lambda blocks: blocks.domain)
        self.domains = [blocks.domain for blocks in ordered]
        self.batch_blocks = batch_blocks
        self._blocks = [ShuffledBlocks(blocks, seed) for blocks in ordered]

    def batch(self, step: int) -> NDArray[np.int64]:
        """(batch_blocks, block_tokens + 1) int64: the rows of a step, from 0."""
        start = step * self.batch_blocks
        return np.stack([self._row(row) for row in range(start, start + self.batch_blocks)])

    def blocks_seen(self, steps: int) -> dict[str, int]:
        """How many blocks each domain has given after so many steps."""
        each, rest = divmod(steps * self.batch_blocks, len(self.domains))
        return {name: each + (place < rest) for place, name in enumerate(self.domains)}

    def _row(self, row: int) -> NDArray[np.int64]:
        place, domain = divmod(row, len(self._blocks))
        return self._blocks[domain].row(place)
