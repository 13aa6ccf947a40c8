"""Metrics by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from evomerge.evaluation.errors import InvalidArgumentError, MetricError
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics.choice import choice_accuracy
from evomerge.evaluation.metrics.items import item_f1, item_precision, item_recall
from evomerge.evaluation.metrics.overlap import chrf, rouge_l
from evomerge.evaluation.metrics.text import exact_match, token_f1
from evomerge.evaluation.objective import FloatArray

# Score of a prediction against an example, from 0 to 1, higher is better.
Score: TypeAlias = Callable[[str, Example], float]

# What the model itself computes from the tokens of the answer; every other metric needs text.
CROSS_ENTROPY = "cross_entropy"

SCORES: Mapping[str, Score] = MappingProxyType(
    {
        "exact_match": exact_match,
        "token_f1": token_f1,
        "item_f1": item_f1,
        "item_precision": item_precision,
        "item_recall": item_recall,
        "choice_accuracy": choice_accuracy,
        "rouge_l": rouge_l,
        "chrf": chrf,
    }
)


def score_of(metric: str) -> Score:
    """The function that scores predictions under a metric.

    Raises:
        MetricError: the metric is unknown, or is cross_entropy, which scores no text.
    """
    if metric == CROSS_ENTROPY:
        raise MetricError("metric", metric, "is computed by the model, not from generated text")
    if metric not in SCORES:
        known = ", ".join([CROSS_ENTROPY, *SCORES])
        raise MetricError("metric", metric, f"is unknown, must be one of {known}")
    return SCORES[metric]


def check_metric(metric: str, examples: Sequence[Example]) -> None:
    """Refuse, before anything is spent, a metric that cannot score these examples.

    Raises:
        MetricError: the metric is unknown; choice_accuracy for rows without choices; a metric
            of generated text for raw text, which asks for nothing.
    """
    if metric == CROSS_ENTROPY:
        return
    score_of(metric)
    for example in examples:
        if metric == "choice_accuracy" and example.kind != "choice":
            raise MetricError("metric", metric, f"row {example.row} has no choices")
        if example.kind == "text":
            raise MetricError(
                "metric", metric, f"row {example.row} is raw text, which has no answer to score"
            )


def metric_losses(
    metric: str, predictions: Sequence[str], examples: Sequence[Example]
) -> FloatArray:
    """1 - score of each prediction, (n,) float64 in [0, 1].

    Raises:
        MetricError: see `score_of`.
        InvalidArgumentError: there are not as many predictions as examples.
    """
    score = score_of(metric)
    if len(predictions) != len(examples):
        raise InvalidArgumentError(
            "predictions", len(predictions), f"must be as many as examples ({len(examples)})"
        )
    pairs = zip(predictions, examples, strict=True)
    return 1.0 - np.array([score(prediction, example) for prediction, example in pairs], float)
