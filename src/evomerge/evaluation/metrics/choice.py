"""Score of an answer to a multiple-choice question."""

from __future__ import annotations

import string

from evomerge.evaluation.errors import MetricError
from evomerge.evaluation.example import Example


def choice_accuracy(prediction: str, example: Example) -> float:
    """1 where the prediction names the right choice, else 0.

    It names the choice whose words it begins with, the longest such choice if there are
    several: "entailment, because ..." names entailment. Words are compared without case and
    without punctuation around them ("(B)" is "b"), or exactly where that would make two choices
    the same.

    Raises:
        MetricError: the example has no choices.
    """
    if not example.choices:
        raise MetricError("metric", "choice_accuracy", f"row {example.row} has no choices")
    return float(_named(prediction, example.choices) == example.answer)


def _named(prediction: str, choices: tuple[str, ...]) -> int | None:
    """Index of the choice that the prediction begins with."""
    options = [_words(choice) for choice in choices]
    said = _words(prediction)
    if len({tuple(option) for option in options}) < len(options):
        options = [choice.split() for choice in choices]
        said = prediction.split()
    begun = [index for index, option in enumerate(options) if said[: len(option)] == option]
    return max(begun, key=lambda index: len(options[index]), default=None)


def _words(text: str) -> list[str]:
    words = text.casefold().split()
    return [word.strip(string.punctuation) or word for word in words]
