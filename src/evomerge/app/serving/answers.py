"""Answers gathered from their parts, and log-probabilities in OpenAI's two shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from evomerge.app.serving.protocol import Part, Run
from evomerge.connectors.local.engine_values import Ended, Piece, Scored, TokenScore, TokenText

# What a probability of zero is written as: JSON has no infinity.
FLOOR = -9999.0


@dataclass
class Gathered:
    """One whole answer."""

    prompt: Scored = field(default_factory=lambda: Scored(()))
    text: str = ""
    tokens: list[TokenScore] = field(default_factory=list)
    finish: str = "length"
    count: int = 0

    def add(self, part: Part) -> None:
        """What was told of it next."""
        match part.told:
            case Scored():
                self.prompt = part.told
            case Piece(text, tokens):
                self.text += text
                self.tokens += tokens
            case Ended(finish, count):
                self.finish, self.count = finish, count


async def gather(run: Run, answers: int) -> list[Gathered]:
    """All answers of a run, in order.

    Raises:
        ApiError: the model broke.
    """
    gathered = [Gathered() for _ in range(answers)]
    async for part in run.parts:
        gathered[part.index].add(part)
    return gathered


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Tokens, as OpenAI counts them."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def completion_logprobs(prompt: Scored, text: str, tokens: Sequence[TokenScore]) -> dict[str, Any]:
    """The completions endpoint's shape.

    Args:
        prompt: as it was read; its tokens, where they are echoed.
        text: of the prompt, where it is echoed; offsets of `tokens` begin behind it.
        tokens: of the answer.
    """
    scores = [*prompt.tokens, *tokens]
    # A beginning-of-text that the tokenizer adds has letters that the text has not.
    offsets = [max(0, one.offset + len(text) - prompt.characters) for one in prompt.tokens]
    offsets += [one.offset + len(text) for one in tokens]
    return {
        "tokens": [one.token.text for one in scores],
        "token_logprobs": [_finite(one.logprob) for one in scores],
        "top_logprobs": [_top(one) for one in scores],
        "text_offset": offsets,
    }


def chat_logprobs(tokens: Sequence[TokenScore]) -> dict[str, Any]:
    """The chat endpoint's shape: of the tokens that are the message's text."""
    content = [
        {
            **_spelt(one.token, one.logprob),
            "top_logprobs": [_spelt(token, value) for token, value in one.alternatives],
        }
        for one in tokens
        if not one.token.special
    ]
    return {"content": content, "refusal": None}


def _top(score: TokenScore) -> dict[str, float | None] | None:
    """The likeliest and the token itself; of two that are spelt alike, the likelier one."""
    if score.logprob is None:
        return None
    found: dict[str, float | None] = {}
    for token, value in (*score.alternatives, (score.token, score.logprob)):
        found.setdefault(token.text, _finite(value))
    return found


def _spelt(token: TokenText, logprob: float | None) -> dict[str, Any]:
    return {"token": token.text, "logprob": _finite(logprob), "bytes": list(token.data)}


def _finite(value: float | None) -> float | None:
    return None if value is None else max(value, FLOOR)
