"""Which rows go through the model together. Pure functions of the rows' lengths.

Short rows first share lines, one after the other in one sequence; lines then share batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

# What one more batch costs, in tokens: the weights are read, and merged ones formed, once more.
_BATCH_COST = 128


def width(total_tokens: int, batch_tokens: int) -> int:
    """How many candidates fit beside each other into one forward, at least 1."""
    return max(1, batch_tokens // max(1, total_tokens))


def lines(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Put rows one after the other into lines of at most `room` tokens, as few and even as found.

    Padding that sorting by length leaves between short rows is what this saves. The longer a
    line, the more its attention costs, for that runs over the whole line.

    Args:
        lengths: tokens of each row.
        room: tokens of one line at most; a row above it is a line of its own.

    Returns:
        Indices of the rows of each line; every row once.
    """
    made = _filled(lengths, room)
    if len(made) == len(lengths):
        return made
    for less in range(room - 1, 0, -1):
        evener = _filled(lengths, less)
        if len(evener) > len(made):
            break
        made = evener
    return made


def _filled(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Best fit decreasing: each row into the fullest line that still takes it; O(rows x room)."""
    made: list[list[int]] = []
    # Lines by the tokens that are left in them.
    left: list[list[int]] = [[] for _ in range(room + 1)]
    for row in _longest_first(lengths):
        length = lengths[row]
        fitting = next((rest for rest in range(length, room + 1) if left[rest]), None)
        if fitting is None:
            line, fitting = len(made), max(room, length)
            made.append([])
        else:
            line = left[fitting].pop()
        made[line].append(row)
        left[fitting - length].append(line)
    return made


def batches(lengths: Sequence[int], candidates: int, batch_tokens: int) -> list[list[int]]:
    """Cut lines, sorted by length, into the batches that waste least on padding.

    Minimises the padded tokens plus a fixed cost for each batch, by dynamic programming over the
    sorted lines; O(lines x lines per batch).

    Args:
        lengths: tokens of each line (or row).
        candidates: how many copies of every line run beside each other.
        batch_tokens: padded tokens of one batch at most, copies included; a single line above it
            is a batch of its own.

    Returns:
        Indices of the lines of each batch, longest lines first; every line once.
    """
    order = _longest_first(lengths)
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


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
