"""What ELMs give to every token of texts: each ELM reads each text once, then never again.

Everything that an ensemble does to a text that is already written needs these numbers alone; every
prior, every top-k and every weighting after them is free of forwards.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import EmptyAnswerError, ScoringCancelledError
from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.errors import BrokenElmError
from evomerge.connectors.local.forward import cut, token_nll
from evomerge.connectors.local.layout import lay_out
from evomerge.connectors.local.rows import Row, RowEncoder
from evomerge.connectors.local.stopping import Stopped, never
from evomerge.evaluation.example import Example
from evomerge.evaluation.objective import FloatArray

# Scored tokens that are written into a cache at once; as many are lost at most where a run is
# killed.
KEPT_AT_ONCE = 65_536


def text_rows(base: BaseModel, texts: Sequence[str]) -> list[Row]:
    """Texts as rows, every token of which is scored; the token that begins a text stands before.

    Raises:
        EmptyAnswerError: an empty text; names its place, from 0.
    """
    encoder = RowEncoder(base.tokenizer, sys.maxsize)
    return [encoder.scored(Example("", text, row=n)) for n, text in enumerate(texts)]


def block_rows(blocks: Sequence[Sequence[int]]) -> list[Row]:
    """Blocks of token ids as rows; all but the first token of each are scored.

    Raises:
        EmptyAnswerError: a block of fewer than two tokens; names its place, from 0.
    """
    for place, block in enumerate(blocks):
        if len(block) < 2:
            raise EmptyAnswerError(place)
    return [Row(tuple(map(int, block)), 1) for block in blocks]


def token_log_probs(
    base: BaseModel,
    rows: Sequence[Row],
    *,
    batch_tokens: int,
    context_tokens: int | None = None,
    cache: LogProbCache | None = None,
    stopped: Stopped = never,
) -> list[FloatArray]:
    """What one ELM gives to each scored token of each row.

    A row longer than the context is read in windows that follow each other, so that every token
    is scored once; the first of a window sees the last token of the window before, and nothing
    ahead of it.

    Args:
        base: the loaded ELM.
        rows: texts or blocks; the same row is read once, however often it stands there.
        batch_tokens: padded tokens of one forward at most (a longer window runs alone).
        context_tokens: of one window at most; what the model's context holds unless given.
        cache: where known ones are and new ones go.
        stopped: asked before each batch.

    Returns:
        (T,) float64 each, natural logarithms at most 0, T the row's scored tokens. They are
        computed in float32, and agree with those of another batch up to its rounding.

    Raises:
        BrokenElmError: the ELM gives NaN.
        ScoringCancelledError: `stopped` said so.
        LogProbCacheError: the cache's file cannot be used.
    """
    window = min(base.context_tokens, context_tokens or base.context_tokens)
    keys = [row_key(row, window) for row in rows]
    owner = cache_owner(base)
    found = {} if cache is None else cache.get(owner, keys)
    missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in found}
    unread = list(missing)
    fresh: dict[str, FloatArray] = {}
    held = 0
    for place, log_probs in _read(base, list(missing.values()), window, batch_tokens, stopped):
        fresh[unread[place]] = log_probs
        held += len(log_probs)
        if cache is not None and held >= KEPT_AT_ONCE:
            cache.put(owner, fresh)
            found |= fresh
            fresh, held = {}, 0
    if cache is not None:
        cache.put(owner, fresh)
    found |= fresh
    return [found[key] for key in keys]


def row_key(row: Row, window: int) -> str:
    """sha256 of a row and of how much of it is seen at once."""
    head = np.array([window, row.start], dtype="<i8").tobytes()
    return hashlib.sha256(head + np.array(row.tokens, dtype="<i8").tobytes()).hexdigest()


def cache_owner(base: BaseModel) -> str:
    """Under what an ELM's log-probabilities are cached: its content and its precision."""
    return owner_of(base.content_hash, base.dtype)


def owner_of(content_hash: str, dtype: torch.dtype) -> str:
    """The same of an ELM that need not be loaded."""
    return f"{content_hash}-{str(dtype).removeprefix('torch.')}"


def windows(row: Row, window: int) -> list[Row]:
    """A row cut into parts of at most `window` inputs; each but the first begins with the last
    token of the one before, and parts without a scored token are left out.
    """
    inputs = len(row.tokens) - 1
    parts = [
        Row(row.tokens[begin : begin + window + 1], max(1, row.start - begin))
        for begin in range(0, inputs, window)
    ]
    return [part for part in parts if part.start < len(part.tokens)]


def _read(
    base: BaseModel, rows: Sequence[Row], window: int, batch_tokens: int, stopped: Stopped
) -> Iterator[tuple[int, FloatArray]]:
    """Place and log-probabilities of each row, as soon as all of its windows are read.

    The model is held for one batch at a time, not for as long as the caller takes.
    """
    cuts = [windows(row, window) for row in rows]
    parts = list(chain.from_iterable(cuts))
    owner = [place for place, some in enumerate(cuts) for _ in some]
    left = [len(some) for some in cuts]
    scored: list[FloatArray | None] = [None] * len(parts)
    firsts = np.cumsum([0, *left])
    for batch in cut(base, parts, 1, batch_tokens):
        if stopped():
            raise ScoringCancelledError("stopped between two batches")
        layout = lay_out([[parts[index] for index in line] for line in batch])
        with base.running():
            nll = token_nll(base, 1, layout)[0]
        if np.isnan(nll).any():
            raise BrokenElmError(base.name)
        ends = np.cumsum(layout.counts)[:-1]
        for index, some in zip(chain.from_iterable(batch), np.split(nll, ends), strict=True):
            scored[index] = np.minimum(-some, 0.0)
            place = owner[index]
            left[place] -= 1
            if not left[place]:
                mine = scored[firsts[place] : firsts[place + 1]]
                yield place, np.concatenate([each for each in mine if each is not None])
