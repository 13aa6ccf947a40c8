"""Which rows go through the model together. Pure functions of the rows' lengths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

# What one more batch costs, in tokens: the weights are read, and merged ones formed, once more.
_BATCH_COST = 128


def width(total_tokens: int, batch_tokens: int) -> int:
    """How many candidates fit beside each other into one forward, at least 1."""
    return max(1, batch_tokens // max(1, total_tokens))


def batches(lengths: Sequence[int], candidates: int, batch_tokens: int) -> list[list[int]]:
    """Cut rows, sorted by length, into the batches that waste least on padding.

    Minimises the padded tokens plus a fixed cost for each batch, by dynamic programming over the
    sorted rows; O(rows x rows per batch).

    Args:
        lengths: tokens of each row.
        candidates: how many copies of every row run beside each other.
        batch_tokens: padded tokens of one batch at most, copies included; a single row above it
            is a batch of its own.

    Returns:
        Indices of the rows of each batch, longest rows first; every row once.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    room = max(1, batch_tokens // candidates)
    cheapest = [0.0] + [float("inf")] * len(order)
    begins = [0] * (len(order) + 1)
    for begin, row in enumerate(order):
        for end in range(begin + 1, len(order) + 1):
            padded = (end - begin) * lengths[row]
            if padded > room and end > begin + 1:
                break
            cost = cheapest[begin] + padded + _BATCH_COST
            if cost < cheapest[end]:
                cheapest[end], begins[end] = cost, begin
    return [order[begin:end] for begin, end in pairwise(_cuts(begins))]


def _cuts(begins: Sequence[int]) -> list[int]:
    """0, the ends of all batches, the number of rows."""
    cuts = [len(begins) - 1]
    while cuts[-1] > 0:
        cuts.append(begins[cuts[-1]])
    return cuts[::-1]
