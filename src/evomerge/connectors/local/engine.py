"""Many requests through one model at once: continuous batching with a key-value cache.

One thread owns the model. Requests of any adapter join the batch as soon as there is room, and
leave it when they end; between two tokens of those under way at most one batch of new prompts is
read, so that nobody waits for long.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence

from torch import Tensor

from evomerge.connectors.local.engine_continuation import Continuation
from evomerge.connectors.local.engine_layers import EngineAdapter
from evomerge.connectors.local.engine_model import EngineModel, Rows
from evomerge.connectors.local.engine_text import Speller
from evomerge.connectors.local.engine_values import (
    Ask,
    EngineBusyError,
    EngineFailedError,
    PromptTooLongError,
    Tell,
    Ticket,
    UnknownTokenError,
)

logger = logging.getLogger(__name__)


class Engine:
    """Continues prompts with one model, or several that speak together.

    Args:
        model: what reads and writes; nothing else may use it meanwhile.
        batch_tokens: padded tokens of one forward over prompts at most (a longer one runs alone).
        rows: answers under way at once at most.
        waiting: requests that may wait at most.
        cache_tokens: keys and values kept at most, padding included (a longer row runs alone).
    """

    def __init__(
        self,
        model: EngineModel,
        *,
        batch_tokens: int = 4096,
        rows: int = 16,
        waiting: int = 256,
        cache_tokens: int = 65_536,
    ) -> None:
        self.model = model
        self._batch_tokens = batch_tokens
        self._rows = rows
        self._limit = waiting
        self._cache_tokens = cache_tokens
        self._ends = frozenset(model.end_tokens)
        self._speller = Speller(model.tokenizer)
        self._waiting: deque[Continuation] = deque()
        self._under_way: list[Continuation] = []  # being read
        self._running: list[Continuation] = []
        self._cached: Rows | None = None
        self._wake = threading.Condition()
        self._closed = False
        self._retired = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def start(
        self, asks: Sequence[Ask], adapter: EngineAdapter | None, tells: Sequence[Tell]
    ) -> list[Ticket]:
        """Queue requests, all or none; each `tell` is called from the engine's thread.

        It is told of a `Scored`, of any number of `Piece`, and at the end of an `Ended`; or of a
        `Failed` at any point. Safe to call from any thread.

        Raises:
            PromptTooLongError, UnknownTokenError: one cannot be answered.
            EngineBusyError: they would wait behind too many others.
            EngineFailedError: the engine is closed.
        """
        for ask in asks:
            self._check(ask)
        new = [
            Continuation(ask, adapter, tell, self._speller)
            for ask, tell in zip(asks, tells, strict=True)
        ]
        with self._wake:
            if self.closed:
                raise EngineFailedError("the engine is closed")
            # A single request with many prompts may always come in where nobody waits.
            if self._waiting and len(self._waiting) + len(new) > self._limit:
                raise EngineBusyError(len(self._waiting))
            self._waiting += new
            self._wake.notify()
        return [each.ticket for each in new]

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests: it was closed or retired, or its thread has died."""
        return self._closed or self._retired

    def retire(self) -> None:
        """Take no more requests, and end the thread when those that came are answered."""
        with self._wake:
            self._retired = True
            self._wake.notify()

    def close(self) -> None:
        """End the thread; whatever is under way fails."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _check(self, ask: Ask) -> None:
        limit, vocabulary = self.model.context_tokens, self.model.vocabulary
        if len(ask.prompt) + ask.max_tokens > limit:
            raise PromptTooLongError(len(ask.prompt), ask.max_tokens, limit)
        for token in ask.prompt:
            if not 0 <= token < vocabulary:
                raise UnknownTokenError(token, vocabulary)

    def _run(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self.closed or bool(self._waiting))
                    if self._closed or not self._waiting:
                        return
                with self.model.running():
                    self._work()
        finally:
            with self._wake:
                self._closed = True
            self._give_up("the engine was closed")

    def _work(self) -> None:
        """Until nothing is left to do."""
        while (self._waiting or self._running) and not self._closed:
            try:
                self._leave()
                self._admit()
                self._step()
            except RuntimeError as error:  # torch's: out of memory, above all
                logger.exception("a forward failed")
                self._give_up(f"a forward failed: {error}")

    def _leave(self) -> None:
        """Let go of rows that have ended or that nobody waits for."""
        gone = {n for n, each in enumerate(self._running) if each.ended or each.dropped}
        if not gone or self._cached is None:
            return
        self._cached.ended(sorted(gone))
        kept = [n for n in range(len(self._running)) if n not in gone]
        self._running = [self._running[n] for n in kept]
        self._cached = self._cached.select(kept) if kept else None

    def _admit(self) -> None:
        """Read the prompts of the next requests, as many as fit."""
        new = self._next()
        if not new:
            return
        new.sort(key=lambda each: each.key)
        keep = any(each.ask.max_tokens > 1 for each in new)
        self._under_way = new
        read = self.model.read([each.prompt for each in new], keep=keep)
        for each, likely, weights in zip(new, read.likely, read.rows.weights(), strict=True):
            each.read(likely, weights)
        self._grow(new, read.logits, read.rows)
        self._under_way = []
        on = [row for row, each in enumerate(new) if not each.ended]
        read.rows.ended([row for row, each in enumerate(new) if each.ended])
        if on:
            self._join([new[row] for row in on], read.rows.select(on))

    def _grow(self, under_way: Sequence[Continuation], logits: Tensor, rows: Rows) -> None:
        """Choose the next token of every row that has not ended."""
        on = [row for row, each in enumerate(under_way) if not each.ended]
        tokens: list[int | None] = [None] * len(under_way)
        for row in on:
            tokens[row] = under_way[row].choose(logits[row])
        rows.observe(tokens)
        weights = rows.weights()
        for row in on:
            if tokens[row] is not None:
                under_way[row].grow(logits[row], self._ends, weights[row])

    def _join(self, new: list[Continuation], rows: Rows) -> None:
        both = [*self._running, *new]
        order = sorted(range(len(both)), key=lambda row: both[row].key)
        whole = rows if self._cached is None else self._cached.joined(rows)
        self._running = [both[row] for row in order]
        self._cached = whole.select(order)

    def _next(self) -> list[Continuation]:
        """The requests to read now, in the order they came."""
        new: list[Continuation] = []
        longest = 0
        longest_row = max((each.most_tokens for each in self._running), default=0)
        with self._wake:
            while self._waiting and len(self._running) + len(new) < self._rows:
                first = self._waiting[0]
                longest = max(longest, len(first.ask.prompt))
                longest_row = max(longest_row, first.most_tokens)
                rows = len(self._running) + len(new) + 1
                if new and longest * (len(new) + 1) > self._batch_tokens:
                    break
                if rows > 1 and longest_row * rows > self._cache_tokens:
                    break
                self._waiting.popleft()
                if not first.dropped:
                    new.append(first)
        return new

    def _step(self) -> None:
        """One more token of every row."""
        if self._cached is None:
            return
        logits = self._cached.step([each.last for each in self._running])
        self._grow(self._running, logits, self._cached)

    def _give_up(self, reason: str) -> None:
        """Fail everything under way, and once closed everything that waits too."""
        with self._wake:
            lost = [*self._under_way, *self._running]
            if self._closed:
                lost += self._waiting
                self._waiting.clear()
        self._under_way, self._running, self._cached = [], [], None
        for each in lost:
            if not each.ended:
                each.fail(EngineFailedError(reason))
