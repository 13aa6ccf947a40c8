"""Overlap scores for free text, through the libraries that define them."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from evomerge.evaluation.errors import MissingLibraryError
from evomerge.evaluation.example import Example

_WORD = re.compile(r"[^\W_]+")


def rouge_l(prediction: str, example: Example) -> float:
    """F-measure of the longest common subsequence of words (Lin 2004), by rouge-score.

    Without stemming. Words are runs of letters and digits of any script: rouge-score's own
    tokenizer knows ASCII alone and would give every Greek or Russian answer 0; on ASCII text
    both agree.

    Raises:
        MissingLibraryError: rouge-score is not installed.
    """
    score = _rouge().score(example.completion, prediction)["rougeL"].fmeasure
    return min(1.0, float(score))


def chrf(prediction: str, example: Example) -> float:
    """chrF2 of one sentence (Popović 2015), by sacrebleu with its defaults, divided by 100.

    Character n-grams up to 6, no word n-grams, beta 2, white space left out.

    Raises:
        MissingLibraryError: sacrebleu is not installed.
    """
    score = _chrf().sentence_score(prediction, [example.completion]).score
    return min(1.0, float(score) / 100)


class _Words:
    """The tokenizer that rouge-score is given."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


@cache
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise MissingLibraryError("rouge-score", "rouge_l") from error
    return RougeScorer(["rougeL"], tokenizer=_Words())


@cache
def _chrf() -> Any:
    try:
        from sacrebleu.metrics.chrf import CHRF
    except ImportError as error:
        raise MissingLibraryError("sacrebleu", "chrf") from error
    return CHRF()
