"""Small checks that the readers of every provider's answers share. Pure; raise BadAnswerError."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.question import Finish, Token

# What OpenAI and vLLM give for a token that is next to impossible.
FLOOR = -9999.0


def cut(
    text: str, tokens: tuple[Token, ...], finish: Finish, stops: Sequence[str]
) -> tuple[str, tuple[Token, ...], Finish]:
    """Up to the first stop text: some models take no `stop`, some servers give it back."""
    found = [place for place in (text.find(stop) for stop in stops if stop) if place >= 0]
    if not found:
        return text, tokens, finish
    end, at, kept = min(found), 0, []
    for token in tokens:
        if at >= end:
            break
        kept.append(token)
        at += len(token.text)
    return text[:end], tuple(kept), "stop"


def logprob(said: Any) -> float | None:
    """None where there is none (JSON null, or the NaN of some servers); never below the floor."""
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float):
        raise BadAnswerError(f"a log-probability is {type(said).__name__}, not a number")
    return None if math.isnan(said) else max(FLOOR, float(said))


def word(said: Any) -> str:
    """A token's text."""
    if not isinstance(said, str):
        raise BadAnswerError(f"a token is {type(said).__name__}, not a string")
    return said


def count(said: Any, estimate: int) -> int:
    """A number of tokens; `estimate` where the server does not say."""
    return said if isinstance(said, int) and not isinstance(said, bool) and said >= 0 else estimate


def entries(said: Mapping[str, Any], name: str) -> list[Any]:
    """The list `name`, which holds something."""
    found = said.get(name)
    if not isinstance(found, list) or not found:
        raise BadAnswerError(f"no {name} in the answer")
    return found


def mapping(said: Any, name: str) -> Mapping[str, Any]:
    """An object; `name` is for the error."""
    if not isinstance(said, dict):
        raise BadAnswerError(f"{name} is {type(said).__name__}, not an object")
    return said
