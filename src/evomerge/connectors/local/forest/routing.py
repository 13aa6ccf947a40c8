"""ELMs weighed by what a text is about, not by how well each foretold it (c-BTM, arXiv 2303.14177).

The router reads text, models read tokens: a token's weights come from the whole characters that the
tokens before it spell, special tokens left out. A character that is not whole yet says nothing.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from evomerge.connectors.local.engine_text import Speller
from evomerge.connectors.local.rows import Row
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.errors import ArgumentError
from evomerge.merging.forest.router import Reading, Router


@dataclass(frozen=True)
class Routing:
    """A router, and whose its clusters are.

    Attributes:
        router: over n clusters.
        clusters: of each ELM that runs, in their order, each cluster once.

    Raises:
        ArgumentError: clusters that are none of the router's, or not all of them.
    """

    router: Router
    clusters: tuple[int, ...]

    def __post_init__(self) -> None:
        if sorted(self.clusters) != list(range(self.router.clusters)):
            reason = f"must be each of the router's {self.router.clusters} once"
            raise ArgumentError("clusters", self.clusters, reason)

    def log_weights(self, speller: Speller, tokens: Sequence[int]) -> FloatArray:
        """Log-weights (n, T) of the ELMs before each of T tokens, normalised."""
        spelling = _Spelling(speller)
        by_cluster = self.router.token_log_weights([spelling.add(token) for token in tokens])
        return by_cluster[list(self.clusters)]

    def of_rows(self, tokenizer: PreTrainedTokenizerBase, rows: Iterable[Row]) -> list[FloatArray]:
        """The same of each row's scored tokens alone, whatever stands before them read."""
        speller = Speller(tokenizer)
        return [self.log_weights(speller, row.tokens)[:, row.start :] for row in rows]


class RoutedText:
    """A text that is being read or written, and what each ELM weighs now."""

    def __init__(self, routing: Routing, speller: Speller) -> None:
        self._clusters = list(routing.clusters)
        self._reading = Reading(routing.router)
        self._spelling = _Spelling(speller)

    def observe(self, token: int, log_probs: FloatArray | None = None) -> None:
        """A token was read or written; what the ELMs gave to it says nothing here."""
        self._reading.observe(self._spelling.add(token))

    def weights(self) -> FloatArray:
        """Of the token that comes next, (n,) with sum 1."""
        weights: FloatArray = np.exp(self._reading.log_weights()[self._clusters])
        return weights


class _Spelling:
    """The whole characters that tokens spell, one after the other."""

    def __init__(self, speller: Speller) -> None:
        self._speller = speller
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, token: int) -> str:
        """What the token makes whole."""
        spelt = self._speller.token(token)
        return "" if spelt.special else self._decoder.decode(spelt.data)
