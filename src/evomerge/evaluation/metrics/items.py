"""Scores of extraction answers: sets of items written `type: item; type: item`.

The format and the measure are InstructUIE's (Wang et al. 2023, arXiv 2304.08085): an item is
right if type and content are both right, and items form a set, so that one said twice counts
once. Here precision, recall and F1 are taken for each example, because the search compares
examples in pairs; a report then averages them, which is not the micro average over all items.

Two deviations, both against answers that the measure would let off lightly: case does not count,
and a piece without a type is an item like any other, so that rambling costs precision.
"""

from __future__ import annotations

import re

from evomerge.evaluation.example import Example

# What extraction data sets write where there is nothing to extract.
_NOTHING = frozenset({"", "none", "[]"})
_AROUND_MARKS = re.compile(r"\s*([:,])\s*")


def item_precision(prediction: str, example: Example) -> float:
    """Share of the predicted items that are right; where none is predicted, as `item_f1`."""
    said, true = items(prediction), items(example.completion)
    if not said or not true:
        return float(said == true)
    return len(said & true) / len(said)


def item_recall(prediction: str, example: Example) -> float:
    """Share of the true items that are predicted; where there is none, as `item_f1`."""
    said, true = items(prediction), items(example.completion)
    if not said or not true:
        return float(said == true)
    return len(said & true) / len(true)


def item_f1(prediction: str, example: Example) -> float:
    """Harmonic mean of item precision and recall.

    Where prediction or completion holds no item the score is 1 if neither does, else 0.
    """
    said, true = items(prediction), items(example.completion)
    if not said or not true:
        return float(said == true)
    return 2 * len(said & true) / (len(said) + len(true))


def items(answer: str) -> frozenset[str]:
    """The items between semicolons and line ends, in their normal form.

    Lower case (Unicode case folding), runs of white space as one blank, one blank behind each
    colon and comma and none before, no comma at either end. Empty pieces, `None` and `[]` are no
    items.
    """
    pieces = (_normal(piece) for piece in re.split(r"[;\n]", answer))
    return frozenset(piece for piece in pieces if piece not in _NOTHING)


def _normal(piece: str) -> str:
    folded = " ".join(piece.casefold().split())
    return _AROUND_MARKS.sub(r"\1 ", folded).strip(" ,")
