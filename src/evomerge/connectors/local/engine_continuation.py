"""One request while the engine works on it."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from evomerge.connectors.local.engine_layers import EngineAdapter
from evomerge.connectors.local.engine_model import Prompt
from evomerge.connectors.local.engine_sampling import Chooser, Likely, likelihoods
from evomerge.connectors.local.engine_text import Answer, Speller
from evomerge.connectors.local.engine_values import (
    Ask,
    Ended,
    EngineError,
    EngineFailedError,
    Failed,
    Finish,
    Piece,
    Scored,
    Tell,
    Ticket,
    TokenScore,
    Weights,
)

_BROKEN = "the model gave NaN: its weights are broken"


class Continuation:
    """A prompt and what follows it.

    Attributes:
        ask, adapter, ticket: as the engine was given them.
        last: the newest token, which the model has not read yet.
        ended: whether nothing more is to be generated or told.
    """

    def __init__(
        self, ask: Ask, adapter: EngineAdapter | None, tell: Tell, speller: Speller
    ) -> None:
        self.ask = ask
        self.adapter = adapter
        self.ticket = Ticket()
        self.last = 0
        self.ended = False
        self._tell = tell
        self._speller = speller
        self._choose = Chooser(ask.draw)
        self._answer = Answer(speller, ask.prompt, ask.draw.stop)
        self._count = 0

    @property
    def key(self) -> str:
        """Rows are sorted by it."""
        return "" if self.adapter is None else self.adapter.key

    @property
    def prompt(self) -> Prompt:
        """What the model is to read."""
        return Prompt(self.ask, self.adapter)

    @property
    def most_tokens(self) -> int:
        """Tokens of prompt and answer at most."""
        return len(self.ask.prompt) + self.ask.max_tokens

    @property
    def dropped(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.ticket.cancelled

    def read(self, likely: Sequence[Likely] | None, weights: Weights) -> None:
        """The prompt went through the model.

        Args:
            likely: of its tokens but the first; None where they are not wanted.
            weights: after it.
        """
        tokens, characters = ((), 0) if likely is None else self._prompt_scores(likely)
        if any(math.isnan(score.logprob or 0.0) for score in tokens):
            self.fail(EngineFailedError(_BROKEN))
            return
        self._tell(Scored(tokens, weights, characters))
        if self.ask.max_tokens == 0:
            self._end("length", None, weights)

    def choose(self, logits: Tensor) -> int | None:
        """The next token, by logits (vocabulary,); None where they are broken, and it failed."""
        if bool(logits.isnan().any()):
            self.fail(EngineFailedError(_BROKEN))
            return None
        self.last = self._choose(logits)
        return self.last

    def grow(self, logits: Tensor, ends: frozenset[int], weights: Weights) -> None:
        """The token was chosen.

        Args:
            logits: (vocabulary,), that it was chosen by.
            ends: tokens that end an answer.
            weights: after it.
        """
        token = self.last
        self._count += 1
        score = None
        if self.ask.alternatives is not None:
            own = torch.tensor([token], device=logits.device)
            score = self._score(token, likelihoods(logits[None], own, self.ask.alternatives)[0])
        if token in ends:
            self._end("stop", score, weights)
            return
        piece = self._answer.add(token, score)
        if piece is not None:
            self._tell(replace(piece, weights=weights))
        if self._answer.stopped:
            self._end("stop", None, weights)
        elif self._count == self.ask.max_tokens:
            self._end("length", None, weights)

    def fail(self, error: EngineError) -> None:
        """Nothing more comes of it."""
        self.ended = True
        self._tell(Failed(error))

    def _end(self, finish: Finish, score: TokenScore | None, weights: Weights) -> None:
        self.ended = True
        piece: Piece | None = self._answer.end(score)
        if piece is not None:
            self._tell(replace(piece, weights=weights))
        # The very last characters may have completed a stop.
        self._tell(Ended("stop" if self._answer.stopped else finish, self._count, weights))

    def _prompt_scores(self, likely: Sequence[Likely]) -> tuple[tuple[TokenScore, ...], int]:
        """With how many characters they are. The first token has nothing before it."""
        prompt = self.ask.prompt
        scores = [TokenScore(self._speller.token(prompt[0]), None)]
        scores += map(self._score, prompt[1:], likely)
        return _placed(scores)

    def _score(self, token: int, likely: Likely) -> TokenScore:
        spelt = self._speller.token
        others = tuple((spelt(other), value) for other, value in likely.alternatives)
        return TokenScore(spelt(token), likely.logprob, others)


def _placed(scores: Sequence[TokenScore]) -> tuple[tuple[TokenScore, ...], int]:
    """The scores with their offsets, and how many characters they are.

    Parts of a character count with its last part; what is no part of any, as U+FFFD.
    """
    placed = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    offset = 0
    for score in scores:
        placed.append(replace(score, offset=offset))
        offset += len(decoder.decode(score.token.data))
    return tuple(placed), offset + len(decoder.decode(b"", final=True))
