"""Answers in words as evidence: items and their votes, texts and their agreement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from evomerge.connectors.question import Completion
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import score_of
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.agreement import Utilities
from evomerge.merging.output.extraction import ItemVotes
from evomerge.merging.output.items import read_items

# What each expert said about one example, sample by sample; empty where it has no answer.
Said: TypeAlias = Sequence[Sequence[Completion]]


@dataclass(frozen=True)
class NamedItems:
    """Votes on items, and how the items are spelled.

    Attributes:
        votes: evidence over the items.
        spellings: (T,), of each item as it was first written.
    """

    votes: ItemVotes
    spellings: tuple[str, ...]


@dataclass(frozen=True)
class NamedTexts:
    """Agreement on answers, and the answers.

    Attributes:
        utilities: evidence over the answers.
        texts: (J,).
    """

    utilities: Utilities
    texts: tuple[str, ...]


def item_votes(said: Said, example: Example | None = None) -> NamedItems:
    """Which items experts name about one example, and which of them are right.

    Args:
        example: with the true items; None where they are not known.
    """
    read = [[_whole_items(one) for one in samples] for samples in said]
    spellings: dict[str, str] = {}
    for samples in read:
        for items in samples:
            for item, spelling in items.items():
                spellings.setdefault(item, spelling)
    named = {item: t for t, item in enumerate(spellings)}
    shares = np.zeros((len(said), len(named)))
    places = np.zeros(shares.shape, dtype=np.int64)
    for i, samples in enumerate(read):
        for place, item in enumerate(dict.fromkeys(item for items in samples for item in items)):
            places[i, named[item]] = place
            shares[i, named[item]] = sum(item in items for items in samples) / len(samples)
    true = None if example is None else read_items(example.completion)
    return NamedItems(
        ItemVotes(
            shares=shares,
            places=places,
            answered=np.array([bool(samples) for samples in said]),
            true=None if true is None else np.array([item in true for item in named], dtype=bool),
            truths=0 if true is None else len(true),
        ),
        tuple(spellings.values()),
    )


def text_utilities(
    said: Said, metric: str, example: Example | None = None, reported: Sequence[str] = ()
) -> NamedTexts:
    """How far experts' answers to one example agree, and how good each is.

    Args:
        metric: the utility, as a metric of `evaluation.metrics` that scores text.
        example: with the true answer; None where it is not known.
        reported: further metrics that answers are measured by.

    Raises:
        MetricError: the metric scores no text.
        MissingLibraryError: the metric's library is not installed.
    """
    # Sorted, so that ties do not depend on who is asked, nor in which order.
    texts = tuple(sorted({one.text.strip() for samples in said for one in samples}))
    number = {text: j for j, text in enumerate(texts)}
    counts = np.zeros((len(said), len(texts)))
    for i, samples in enumerate(said):
        for one in samples:
            counts[i, number[one.text.strip()]] += 1 / len(samples)
    score = score_of(metric)
    agreement = np.array(
        [[score(text, Example("", truth)) for text in texts] for truth in texts]
    ).reshape(len(texts), len(texts))
    return NamedTexts(
        Utilities(
            utility=counts @ agreement,
            said=counts > 0,
            losses={}
            if example is None
            else {one: _losses(one, (*texts, ""), example) for one in (metric, *reported)},
        ),
        texts,
    )


def _losses(metric: str, texts: Sequence[str], example: Example) -> FloatArray:
    score = score_of(metric)
    return np.array([1 - score(text, example) for text in texts])


def _whole_items(completion: Completion) -> dict[str, str]:
    """Items of an answer, but for one that was cut off in the middle at its end."""
    items = read_items(completion.text)
    if completion.finish == "length" and len(items) > 1 and not _ends(completion.text):
        items.popitem()
    return items


def _ends(text: str) -> bool:
    """Whether the last item is whole: something stands behind it."""
    return text.rstrip(" ").endswith((";", "\n", "]", "}"))
