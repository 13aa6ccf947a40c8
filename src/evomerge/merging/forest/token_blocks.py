"""Sums of log-mixtures over texts, for many mixtures at once: one matrix product, few logarithms.

    L(w, x) = sum_{t in x} log sum_j w_j p_j(t)

The logarithms are what costs, so that the probabilities of several tokens are multiplied before
one is taken of them, in float32:

- each token is scaled by the largest of its probabilities m(t), whose logarithms are summed apart
  in float64, and by 2^14, so that products of 8 stay far from float32's largest and smallest;
- a token to which a mixture gives less than 2^-29.5 of m(t), about 10^-9, is mixed again in float64
  by its logarithms.

What is left of float32 is rounding that goes either way, less than 10^-6 nats a token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.logs import log_sum
from evomerge.merging.forest.posterior import relative
from evomerge.optimizers.blas import one_blas_thread

# Mixtures and tokens of one step: 256 * 1024 float32 are 1 MB, which stay in a core's cache.
_MIXTURES = 256
_TOKENS = 1024
# So many tokens' probabilities are multiplied, where texts are long enough for it.
_PRODUCTS = (8, 4, 2, 1)
# Texts may become this much longer by what fills them up to whole products.
_FILLING = 1.25
_SCALE = 14 * np.log(2)
# Products of 8 that are no less than this are no less than 2^-124, which is a normal number.
_LEAST = np.float32(2.0**-15.5)
# So many are mixed again at once.
_AGAIN = 1 << 14

Float32Array = NDArray[np.float32]
IntArray = NDArray[np.int64]


class TokenBlocks:
    """Texts end to end, each filled up to whole products, cut into blocks.

    Args:
        texts: log-probabilities (n, T) float64 of each text, at least one text; T may be 0.
    """

    def __init__(self, texts: Sequence[FloatArray]) -> None:
        self._texts = len(texts)
        self._filled = [x for x, text in enumerate(texts) if text.shape[1]]
        filled = [texts[x] for x in self._filled]
        sizes = np.array([text.shape[1] for text in filled], dtype=np.int64)
        product = _product(sizes)
        groups = -(-sizes // product)
        scaled = np.zeros((len(texts[0]), int(groups.sum()) * product))
        starts = (np.cumsum(groups) - groups) * product
        for start, size, text in zip(starts, sizes, filled, strict=True):
            scaled[:, start : start + size] = _over_best(text) + _SCALE
        owners = np.repeat(np.arange(len(filled)), groups)
        grouped = scaled.reshape(len(scaled), -1, product)
        self._blocks = [
            _Block.of(grouped[:, part], owners[part]) for part in _parts(len(owners), product)
        ]
        # What scaling took from each text's sum, nats.
        self._scales = np.array([_best(text).sum() for text in filled]) - sizes * _SCALE

    def sums(self, weights: FloatArray, threads: int) -> FloatArray:
        """L of every mixture and text.

        Args:
            weights: (m, n) at least 0, with sum 1 in each row.
            threads: so many; the result does not depend on it.

        Returns:
            (m, texts) float64, nats; -inf where a text is impossible.
        """
        result = np.zeros((len(weights), self._texts))

        def fill(start: int) -> None:
            rows = slice(start, start + _MIXTURES)
            result[rows, self._filled] = self._sums(weights[rows])

        with one_blas_thread(), ThreadPoolExecutor(threads, "reweighting") as pool:
            for _ in pool.map(fill, range(0, len(weights), _MIXTURES)):
                pass
        return result

    def _sums(self, weights: FloatArray) -> FloatArray:
        narrow = weights.astype(np.float32)
        room = np.empty(len(weights) * _TOKENS, dtype=np.float32)
        total = np.tile(self._scales, (len(weights), 1))
        for block in self._blocks:
            total[:, block.texts] += block.sums(weights, narrow, room)
        return total


@dataclass(frozen=True)
class _Block:
    """Some groups of tokens; g tokens are a group, whose probabilities are multiplied.

    Token k of group i stands at k * groups + i, so that a group is multiplied by halves.

    Attributes:
        logs: (n, g * groups), scaled; 0 for what fills a text up.
        probabilities: exp of them.
        groups: how many.
        texts: the owners of these groups, one after the other.
        starts: (x,), the first group of each.
    """

    logs: FloatArray
    probabilities: Float32Array
    groups: int
    texts: slice
    starts: IntArray

    @classmethod
    def of(cls, grouped: FloatArray, owners: IntArray) -> _Block:
        """Of scaled logarithms (n, groups, g) and the text of each group (groups,), rising."""
        elms, groups, _ = grouped.shape
        logs = np.ascontiguousarray(grouped.transpose(0, 2, 1)).reshape(elms, -1)
        _, starts = np.unique(owners, return_index=True)
        texts = slice(int(owners[0]), int(owners[-1]) + 1)
        return cls(logs, np.exp(logs).astype(np.float32), groups, texts, starts)

    def sums(self, weights: FloatArray, narrow: Float32Array, room: Float32Array) -> FloatArray:
        """Sums of log-mixtures by text (m, x), for weights (m, n) in both widths.

        `room` is memory to work in: of (m * tokens,) or more.
        """
        shape = len(narrow), self.probabilities.shape[1]
        mixed = room[: shape[0] * shape[1]].reshape(shape)
        np.matmul(narrow, self.probabilities, out=mixed)
        rows = np.flatnonzero(mixed.min(axis=1) < _LEAST)
        again = self._one_by_one(weights[rows], mixed[rows])
        # What is too low multiplies to anything, and is replaced.
        with np.errstate(divide="ignore", under="ignore"):
            sums = self._by_text(np.log(self._multiplied(mixed)))
        sums[rows] = self._by_text(again)
        return sums

    def _multiplied(self, mixed: Float32Array) -> Float32Array:
        """Products over each group (m, groups), made in place of what is multiplied."""
        width = mixed.shape[1]
        while width > self.groups:
            width //= 2
            np.multiply(mixed[:, :width], mixed[:, width : 2 * width], out=mixed[:, :width])
        return mixed[:, :width]

    def _one_by_one(self, weights: FloatArray, mixed: Float32Array) -> FloatArray:
        """Sums of log-mixtures by group (r, groups), of mixtures that are low somewhere."""
        low = mixed < _LEAST
        logs = np.log(np.where(low, 1.0, mixed.astype(np.float64)))
        rows, columns = np.nonzero(low)
        with np.errstate(divide="ignore"):
            log_weights = np.log(weights.T)
        for at in range(0, len(rows), _AGAIN):
            some = slice(at, at + _AGAIN)
            joint = log_weights[:, rows[some]] + self.logs[:, columns[some]]
            logs[rows[some], columns[some]] = log_sum(joint)
        product = logs.shape[1] // self.groups
        by_group: FloatArray = logs.reshape(len(logs), product, self.groups).sum(axis=1)
        return by_group

    def _by_text(self, by_group: NDArray[np.floating]) -> FloatArray:
        """(m, groups) to (m, x), summed in float64."""
        sums: FloatArray = np.add.reduceat(by_group, self.starts, axis=1, dtype=np.float64)
        return sums


def _product(sizes: IntArray) -> int:
    """How many tokens are multiplied: as many as do not make texts much longer."""
    for product in _PRODUCTS:
        if (-(-sizes // product) * product).sum() <= _FILLING * sizes.sum():
            return product
    return 1


def _parts(groups: int, product: int) -> Iterator[slice]:
    size = _TOKENS // product
    for start in range(0, groups, size):
        yield slice(start, start + size)


def _best(text: FloatArray) -> FloatArray:
    """log m(t), (T,)."""
    best: FloatArray = text.max(axis=0)
    return best


def _over_best(text: FloatArray) -> FloatArray:
    """log p_j(t) / m(t), (n, T); 0 where m(t) is 0, which says all by itself."""
    return np.where(np.isneginf(_best(text)), 0.0, relative(text))
