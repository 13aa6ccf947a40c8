"""What ELMs give to the rows of a job, read once and then taken from the cache.

Numbers of one row differ in their last bits by what else is in its batch. So rows are read in
groups that depend on the rows alone, each is kept whole or not at all, and what is given is always
what was kept: a reading that was killed goes on to the same bits, and one that is repeated reads
nothing, and loads nothing but the first model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.elms import Elms
from evomerge.connectors.local.forest.log_probs import (
    KEPT_AT_ONCE,
    owner_of,
    row_key,
    token_log_probs,
)
from evomerge.connectors.local.rows import Row
from evomerge.connectors.local.stopping import Stopped, never
from evomerge.evaluation.objective import FloatArray

# Forwards whose results are kept together, about.
_BATCHES = 16


class Gathering:
    """Lets models read rows, one model after the other.

    Args:
        elms: of one architecture, their content hashes known.
        rows: what they read; the same row is read once, however often it stands there.
        cache: where known numbers are and new ones go.
        batch_tokens: padded tokens of one forward at most.

    Attributes:
        planned: tokens that are not known yet, over all models.
        tokens: read so far by this object; moves on with every group.

    Raises:
        LogProbCacheError: a file of the cache cannot be used.
        BaseFolderError, ElmChangedError: the first model cannot be loaded.
    """

    def __init__(
        self, elms: Elms, rows: Sequence[Row], cache: LogProbCache, batch_tokens: int
    ) -> None:
        self._elms = elms
        self._cache = cache
        self._batch_tokens = batch_tokens
        first = elms.model(0)
        self._keys = [row_key(row, first.context_tokens) for row in rows]
        self._rows = dict(zip(self._keys, rows, strict=True))
        self._owners = [owner_of(str(elm.content_hash), first.dtype) for elm in elms.elms]
        self.planned = sum(self._tokens(self._missing(owner)) for owner in set(self._owners))
        self.tokens = 0

    def run(self, stopped: Stopped = never) -> list[FloatArray]:
        """Read what is not known.

        Args:
            stopped: asked before each batch.

        Returns:
            Of each row (models, T) float64, natural logarithms, T the row's scored tokens.

        Raises:
            BrokenElmError: a model gives NaN.
            ScoringCancelledError: `stopped` said so; what was read is kept.
            LogProbCacheError: a file of the cache cannot be used.
            BaseFolderError, ElmChangedError, ElmMismatchError: a model cannot be loaded.
        """
        read = [self._read(place, stopped) for place in range(len(self._elms))]
        return [np.stack([of_elm[key] for of_elm in read]) for key in self._keys]

    def _read(self, place: int, stopped: Stopped) -> Mapping[str, FloatArray]:
        """What one model gives to each row, by key."""
        missing = self._missing(self._owners[place])
        for group in self._groups() if missing else ():
            unread = missing.intersection(group)
            if not unread:
                continue
            token_log_probs(
                self._elms.model(place),
                [self._rows[key] for key in group],
                batch_tokens=self._batch_tokens,
                cache=self._cache,
                stopped=stopped,
            )
            self.tokens += self._tokens(unread)
        return self._known(self._owners[place])

    def _groups(self) -> list[list[str]]:
        """Keys of rows that are kept by one transaction each."""
        most = min(KEPT_AT_ONCE, _BATCHES * self._batch_tokens)
        groups: list[list[str]] = []
        held = most
        for key, row in self._rows.items():
            if held + len(row.tokens) > most:
                groups.append([])
                held = 0
            groups[-1].append(key)
            held += len(row.tokens)
        return groups

    def _known(self, owner: str) -> dict[str, FloatArray]:
        return self._cache.get(owner, list(self._rows))

    def _missing(self, owner: str) -> set[str]:
        return self._rows.keys() - self._known(owner).keys()

    def _tokens(self, keys: set[str]) -> int:
        return sum(len(self._rows[key].tokens) for key in keys)
