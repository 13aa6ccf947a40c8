"""Echoed texts as evidence: the log-probabilities of their scored tokens, expert by expert."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from evomerge.connectors.output.errors import TokenisationError
from evomerge.connectors.output.logprobs import clamped, scored_tokens
from evomerge.connectors.question import Completion, Token
from evomerge.merging.output.mixture import TokenScores

_BYTES_A_TOKEN = 4
# Stands for whatever a text begins with.
_FIRST = Token("", None)


def token_scores(
    names: Sequence[str], echoes: Sequence[Completion | None], part: str, row: int
) -> TokenScores:
    """What experts give to the tokens of one example's scored part.

    The first token of all, which stands behind nothing, has no probability and does not count.
    Where nobody has an answer it is not known what the tokens are, and each counts for four bytes.

    Args:
        names: of the experts.
        echoes: by expert; None where one has no answer.
        part: the scored part of the text, not empty.
        row: the example's, for messages.

    Raises:
        TokenisationError: an expert cuts the part into other tokens than the first that answered.
    """
    return _scores(names, [_scored(echo, part) for echo in echoes], part, row)


def text_scores(
    names: Sequence[str], echoes: Sequence[Completion | None], text: str, row: int
) -> tuple[tuple[str, ...], TokenScores]:
    """What experts give to the tokens of a whole text, and how the tokens are spelt.

    The first token stands behind something for some experts (a system prompt, a beginning of text)
    and behind nothing for others: its scores have no meaning, and it is spelt by what the others
    leave of the text.

    Args:
        names, echoes, row: see `token_scores`.
        text: not empty.

    Returns:
        T spellings, none where nobody has an answer; the scores of T tokens.

    Raises:
        TokenisationError: as `token_scores`.
    """
    found = [_spelling(echo, text) for echo in echoes]
    scores = _scores(names, [tokens and (_FIRST, *tokens[1:]) for tokens in found], text, row)
    spelt = next((tokens for tokens in found if tokens), None)
    if spelt is None:
        return (), scores
    rest = [token.text for token in spelt[1:]]
    joined = "".join(rest)
    first = text[: len(text) - len(joined)] if text.endswith(joined) else spelt[0].text
    return (first, *rest), scores


def _scores(
    names: Sequence[str], found: Sequence[tuple[Token, ...] | None], part: str, row: int
) -> TokenScores:
    answered = [i for i, tokens in enumerate(found) if tokens]
    size = len(part.encode())
    if not answered:
        tokens_guessed = math.ceil(size / _BYTES_A_TOKEN)
        return TokenScores(
            np.zeros((len(names), tokens_guessed)), np.zeros(len(names), dtype=bool), size
        )
    first = answered[0]
    spelled = [token.text for token in found[first] or ()]
    log_probs = np.zeros((len(names), len(spelled)))
    for i in answered:
        tokens = found[i] or ()
        if [token.text for token in tokens] != spelled:
            raise TokenisationError(names[i], names[first], row)
        log_probs[i] = [clamped(token.logprob) for token in tokens]
    return TokenScores(log_probs, np.isin(np.arange(len(names)), answered), size)


def _spelling(echo: Completion | None, part: str) -> tuple[Token, ...] | None:
    return scored_tokens(echo.prompt_tokens, part) if echo and echo.prompt_tokens else None


def _scored(echo: Completion | None, part: str) -> tuple[Token, ...] | None:
    tokens = _spelling(echo, part)
    if echo and tokens and tokens[0] is echo.prompt_tokens[0] and tokens[0].logprob is None:
        tokens = tokens[1:]
    return tokens or None
