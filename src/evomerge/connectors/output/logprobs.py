"""Log-probabilities out of answers, from whatever was given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from evomerge.connectors.output.labels import label_of
from evomerge.connectors.question import Completion, Token
from evomerge.evaluation.objective import FloatArray

# One token counts for no less than this, in nats: providers write -9999 or null for "unlikely",
# and one such number would drown all others.
LEAST = -30.0


def clamped(logprob: float | None) -> float:
    """A token's log-probability as it counts: within [LEAST, 0], LEAST where it is not known."""
    if logprob is None or math.isnan(logprob):
        return LEAST
    return min(0.0, max(LEAST, logprob))


def scored_tokens(tokens: Sequence[Token], part: str) -> tuple[Token, ...] | None:
    """The tokens at the end that spell `part`, with what they begin before it.

    A tokenizer may join the end of the prompt to the beginning of the part; such a token counts.
    Where tokens do not spell the text, for blanks that are written otherwise and pieces of
    characters that are written as none, what they have in common with it decides: ASCII without
    blanks. Where nothing stands before the part, its first token may lack its text as it lacks a
    probability, and all tokens are the part's.

    Returns:
        None where it cannot be told.
    """
    texts, wanted = [token.text for token in tokens], part
    if not "".join(texts).endswith(part):
        texts, wanted = [_plain(text) for text in texts], _plain(part)
        spelled = "".join(texts)
        if spelled and tokens[0] == Token("", None) and wanted.endswith(spelled):
            return tuple(tokens)
        # What begins with another character would lose its first tokens.
        if not wanted or wanted[0] != part.lstrip()[0] or not spelled.endswith(wanted):
            return None
    ends = list(accumulate(len(text) for text in texts))
    start = (ends[-1] if ends else 0) - len(wanted)
    return tuple(token for token, end in zip(tokens, ends, strict=True) if end > start)


def option_scores(completions: Sequence[Completion], parts: Sequence[str]) -> FloatArray | None:
    """Log-likelihood of each option by its echoed tokens, (C,) float64.

    Nats a byte, so that long options are not put at a disadvantage, times the mean number of bytes
    of the options, so that the numbers have the size of whole answers' log-probabilities: where all
    options are of one length they are just that.

    Where the tokens do not spell an option's text, what its token list does not share with the
    other options' is taken.

    Args:
        completions: of one question, one for each option in order.
        parts: the scored part of each option's text.

    Returns:
        None where an echo is missing.
    """
    if len(completions) != len(parts) or not all(one.prompt_tokens for one in completions):
        return None
    echoed = [one.prompt_tokens for one in completions]
    found = [scored_tokens(tokens, part) for tokens, part in zip(echoed, parts, strict=True)]
    if any(tokens is None for tokens in found):
        shared = _shared([[token.text for token in tokens] for tokens in echoed])
        found = [tokens[shared:] for tokens in echoed]
    sums = np.array([sum(clamped(token.logprob) for token in tokens or ()) for tokens in found])
    sizes = np.array([max(1, len(part.encode())) for part in parts], dtype=np.float64)
    scores: FloatArray = sums / sizes * sizes.mean()
    return scores


def label_scores(completion: Completion, names: Sequence[str]) -> FloatArray | None:
    """Log-probability of each label as the first token of an answer, (C,) float64.

    Spellings of a label (case, blanks, marks around it) count together. A label among none of the
    alternatives gets log min(p_k, (1 - sum p) / missing), p_k the least likely alternative: it is
    no likelier than that one, and all missing share what is left at most.

    Returns:
        None where no log-probabilities were given, or none of a label.
    """
    if not completion.tokens:
        return None
    first = completion.tokens[0]
    given = {text: clamped(logprob) for text, logprob in first.alternatives}
    if first.logprob is not None:
        given.setdefault(first.text, clamped(first.logprob))
    by_label: dict[int, list[float]] = {}
    for text, logprob in given.items():
        if (index := label_of(text, names)) is not None:
            by_label.setdefault(index, []).append(logprob)
    if not by_label:
        return None
    missing = len(names) - len(by_label)
    left = max(0.0, 1.0 - sum(math.exp(logprob) for logprob in given.values()))
    floor = min(min(given.values()), _log(left / max(1, missing)))
    return np.array(
        [
            np.logaddexp.reduce(by_label[index]) if index in by_label else clamped(floor)
            for index in range(len(names))
        ]
    )


def vote_scores(votes: Sequence[int | None], options: int, smoothing: float) -> FloatArray | None:
    """Log-share of samples for each option, log((n_c + lambda) / (k + lambda C)), (C,) float64.

    Args:
        votes: the option that each sample names; None for one that names none, which does not
            count.

    Returns:
        None where no sample names an option.
    """
    named = [vote for vote in votes if vote is not None]
    if not named:
        return None
    counts = np.bincount(named, minlength=options) + smoothing
    scores: FloatArray = np.log(counts / counts.sum())
    return scores


def _shared(lists: Sequence[Sequence[str]]) -> int:
    """How many leading texts all lists have in common."""
    count = 0
    for texts in zip(*lists, strict=False):
        if len(set(texts)) > 1:
            break
        count += 1
    return count


def _plain(text: str) -> str:
    return "".join(character for character in text if "!" <= character <= "~")


def _log(p: float) -> float:
    return math.log(p) if p > 0 else LEAST
