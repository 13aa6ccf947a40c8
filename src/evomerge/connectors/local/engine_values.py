"""What the engine is asked and what it tells. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from evomerge.connectors.local.errors import LocalModelError

Finish = Literal["stop", "length"]
# What each of several models that speak together weighs, summing to 1; empty where one speaks.
Weights: TypeAlias = tuple[float, ...]


class EngineError(LocalModelError):
    """The engine cannot answer."""


class EngineBusyError(EngineError):
    """Too many requests wait already."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting already; try again later")


class EngineFailedError(EngineError):
    """A forward failed, or the engine was closed, while an answer was under way."""


class PromptTooLongError(EngineError, ValueError):
    """Prompt and answer do not fit into the context; names all three sizes."""

    def __init__(self, prompt: int, answer: int, limit: int) -> None:
        super().__init__(
            f"the model's context holds {limit} tokens, the request asks for {prompt + answer} "
            f"({prompt} of the prompt, {answer} of the answer)"
        )
        self.prompt = prompt
        self.answer = answer
        self.limit = limit


class UnknownTokenError(EngineError, ValueError):
    """A token id that the vocabulary does not have."""

    def __init__(self, token: int, size: int) -> None:
        super().__init__(f"token {token} is not one of the vocabulary's {size}")
        self.token = token


@dataclass(frozen=True)
class Draw:
    """How an answer is drawn.

    Attributes:
        temperature: 0 is greedy.
        top_p: draw from the likeliest tokens that hold this much probability together.
        seed: the same seed, prompt and model draw the same answer, whatever else is under way.
        stop: texts that end the answer and are no part of it.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """One prompt to continue.

    Attributes:
        prompt: token ids, at least one.
        max_tokens: of the answer at most; 0 reads the prompt and writes nothing.
        draw: how the answer is drawn.
        alternatives: log-probabilities wanted beside each token's own; None for none at all.
        echo: whether the prompt's own tokens are to be scored too (with `alternatives`).
    """

    prompt: tuple[int, ...]
    max_tokens: int
    draw: Draw = field(default_factory=Draw)
    alternatives: int | None = None
    echo: bool = False


@dataclass(frozen=True)
class TokenText:
    """How one token is spelt: as bytes, and as text where its bytes are whole characters.

    `text` of a part of a character is written like ``bytes:\\xe2\\x80``. A `special` token has no
    place in an answer's text.
    """

    text: str
    data: bytes
    special: bool = False


@dataclass(frozen=True)
class TokenScore:
    """One token of prompt or answer.

    Attributes:
        token: how it is spelt.
        logprob: natural logarithm of its probability under the model as it is, before temperature
            and top_p; None for a prompt's first token.
        alternatives: the likeliest tokens in its place, likeliest first.
        offset: characters of its text, prompt or answer, before it.
    """

    token: TokenText
    logprob: float | None
    alternatives: tuple[tuple[TokenText, float], ...] = ()
    offset: int = 0


@dataclass(frozen=True)
class Scored:
    """The prompt was read; its tokens, where `echo` was asked for, and the weights after it.

    `characters` are those of the tokens' text, what the tokenizer adds to the prompt's included.
    """

    tokens: tuple[TokenScore, ...]
    weights: Weights = ()
    characters: int = 0


@dataclass(frozen=True)
class Piece:
    """More of the answer: text that no stop can take back, the tokens that ended in it, and the
    weights after them.
    """

    text: str
    tokens: tuple[TokenScore, ...] = ()
    weights: Weights = ()


@dataclass(frozen=True)
class Ended:
    """The end of an answer; `tokens` were generated in all, an end-of-text included. The weights
    are those after all of them.
    """

    finish: Finish
    tokens: int
    weights: Weights = ()


@dataclass(frozen=True)
class Failed:
    """There is no answer, or no more of it."""

    error: EngineError


Told: TypeAlias = Scored | Piece | Ended | Failed
Tell = Callable[[Told], None]


@dataclass(eq=False)
class Ticket:
    """A request under way."""

    cancelled: bool = field(default=False)

    def cancel(self) -> None:
        """Ask the engine to drop it before its next token; nothing more is told of it then."""
        self.cancelled = True
