"""S_alpha of task vectors, theta_i - theta_seed, without ever holding one whole.

As for adapters (Evo-Merging, section 3.1), ceil(alpha * numel) entries of one tensor stay, those
of largest magnitude, ties going to the entry that comes first. Where the line is drawn is found
digit by digit, by counting; after that a stretch can be sparsified by itself.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.merging.checkpoint import kernels
from evomerge.merging.checkpoint.errors import TensorError
from evomerge.merging.checkpoint.files import TensorEntry
from evomerge.merging.checkpoint.kernels import BUCKETS, DIGIT_BITS, SHIFTS, Counts
from evomerge.merging.checkpoint.tensors import STRETCH, Source, values

# Lines drawn last that are remembered: a search asks for the same ones again once alpha is fixed.
_REMEMBERED = 1 << 16


@dataclass(frozen=True)
class Line:
    """Which entries of a task vector's tensor stay.

    Attributes:
        magnitude: those above it, float32.
        ties_end: and of those equal to it the ones before this place in the flat tensor.
    """

    magnitude: np.float32
    ties_end: int


class TaskVector:
    """theta_i - theta_seed, one ELM's. For several threads.

    Attributes:
        elm, seed: where the two checkpoints' values come from.
    """

    def __init__(self, elm: Source, seed: Source) -> None:
        self.elm = elm
        self.seed = seed
        self._lock = threading.Lock()
        # Of each tensor, how many magnitudes begin with which digit.
        self._first_digits: dict[str, Counts] = {}
        self._lines: OrderedDict[tuple[str, int], Line] = OrderedDict()

    def line(self, name: str, alpha: float) -> Line | None:
        """Where S_alpha of a tensor draws the line; None where everything stays.

        Args:
            name: of a float tensor.
            alpha: in (0, 1].
        """
        entry = self.elm.checkpoint.tensors[name]
        kept = math.ceil(alpha * entry.size)
        if kept >= entry.size:
            return None
        with self._lock:
            known = self._lines.get((name, kept))
        return known or self._remember(name, kept, self._draw(entry, kept))

    def _remember(self, name: str, kept: int, line: Line) -> Line:
        with self._lock:
            self._lines[name, kept] = line
            if len(self._lines) > _REMEMBERED:
                self._lines.popitem(last=False)
        return line

    def _draw(self, entry: TensorEntry, kept: int) -> Line:
        """The magnitude of the `kept`-th largest entry, and how many of its equals stay."""
        digits, left = 0, kept
        for shift in SHIFTS:
            counts = self._counts(entry, shift, digits)
            # The digit in which the `left`-th largest is, counting from the highest one down.
            above = np.cumsum(counts[::-1])
            place = int(np.searchsorted(above, left))
            left -= int(above[place] - counts[::-1][place])
            digits = digits << DIGIT_BITS | (BUCKETS - 1 - place)
        magnitude = np.array([digits], np.int32).view(np.float32)[0]
        return Line(np.float32(magnitude), self._end_of_ties(entry, digits, left))

    def _counts(self, entry: TensorEntry, shift: int, above: int) -> Counts:
        """How many magnitudes that begin with `above` go on with which digit, (BUCKETS,)."""
        if shift == SHIFTS[0] and entry.name in self._first_digits:
            return self._first_digits[entry.name]
        counts = np.zeros(BUCKETS, np.int64)
        for first in range(0, entry.size, STRETCH):
            bits = self._bits(entry, first)
            kernels.count_digits(bits, shift, above, counts)
        if shift == SHIFTS[0]:
            self._first_digits[entry.name] = counts
        return counts

    def _end_of_ties(self, entry: TensorEntry, magnitude: int, wanted: int) -> int:
        """The place after the `wanted`-th entry of exactly that magnitude."""
        for first in range(0, entry.size, STRETCH):
            found, end = kernels.end_of_ties(self._bits(entry, first), magnitude, wanted)
            wanted -= found
            if wanted == 0:
                return first + int(end)
        file = self.elm.checkpoint.folder / entry.shard
        raise TensorError(file, entry.name, "has changed while it was read")

    def _bits(self, entry: TensorEntry, first: int) -> NDArray[np.int32]:
        """The difference to the seed of one stretch in float32, as bits."""
        last = min(first + STRETCH, entry.size)
        other = self.seed.checkpoint.tensors[entry.name]
        own, seed = values(self.elm, entry, first, last), values(self.seed, other, first, last)
        difference = np.empty(last - first, np.float32)
        kernels.subtract(own, seed, difference)
        return difference.view(np.int32)
