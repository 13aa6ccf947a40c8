"""Scores of a whole answer as text."""

from __future__ import annotations

import re
import string
from collections import Counter

from evomerge.evaluation.example import Example

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(prediction: str, example: Example) -> float:
    """1 where prediction and completion are the same text but for white space.

    Runs of white space count as one blank and are dropped at the ends; case and punctuation
    count, so that -5 is not 5 and "A" is not "the".
    """
    return float(prediction.split() == example.completion.split())


def token_f1(prediction: str, example: Example) -> float:
    """F1 of the words that prediction and completion share, each as often as it stands in both.

    As SQuAD's evaluation defines it (Rajpurkar et al. 2016; version 2.0 for empty answers):
    texts are normalised by `squad_words`; where one has no words left the score is 1 if the
    other has none either, else 0.
    """
    said, true = squad_words(prediction), squad_words(example.completion)
    if not said or not true:
        return float(said == true)
    common = (Counter(said) & Counter(true)).total()
    return 2 * common / (len(said) + len(true))


def squad_words(text: str) -> list[str]:
    """Words in lower case, without ASCII punctuation and without the articles a, an, the."""
    bare = text.lower().translate(_NO_PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split()
