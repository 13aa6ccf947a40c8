"""Packed blocks: a part's tokens cut into rows of one length, in an order that a seed gives.

A block of T tokens predicts T tokens: it reads T + 1, of which the last is the first of the next
block. What does not fill the last block is left. Documents stand packed behind one another, with
an end-of-text token between them; a block never crosses from one part into another, for each part
has its own tokens.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evomerge.connectors.local.training.recipe import check_fills
from evomerge.connectors.local.training.tokens import TokenCache
from evomerge.evaluation.corpus import Part


class Blocks:
    """The blocks of one part of a domain.

    Attributes:
        domain: its name.
        count: how many blocks there are.

    Raises:
        TooFewTokensError: there is none.
    """

    def __init__(self, cache: TokenCache, part: Part, block_tokens: int) -> None:
        self.domain = cache.domain
        self._tokens: NDArray[Any] = cache.tokens(part)
        check_fills(cache.domain, part, len(self._tokens), block_tokens)
        self._length = block_tokens
        self.count = (len(self._tokens) - 1) // block_tokens

    def row(self, block: int) -> NDArray[np.int64]:
        """(block_tokens + 1,) int64: the inputs and, one place on, the targets of a block."""
        start = block * self._length
        return self._tokens[start : start + self._length + 1].astype(np.int64)


class ShuffledBlocks:
    """A domain's blocks without end: each epoch has all of them, in an order of its own.

    The order depends on the seed, the domain's name and the epoch alone, so that a run which is
    taken up anywhere goes on with the same rows and needs no generator's state.
    """

    def __init__(self, blocks: Blocks, seed: int) -> None:
        self.blocks = blocks
        self._key = int.from_bytes(sha256(f"{seed}:{blocks.domain}".encode()).digest()[:8], "big")
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def row(self, place: int) -> NDArray[np.int64]:
        """(block_tokens + 1,) int64 at a place from 0 in the endless order."""
        epoch, within = divmod(place, self.blocks.count)
        if epoch != self._epoch:
            generator = np.random.default_rng([self._key, epoch])
            self._order = generator.permutation(self.blocks.count)
            self._epoch = epoch
        return self.blocks.row(int(self._order[within]))
