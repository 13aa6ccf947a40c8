"""Assignment of documents to clusters of equal size, at the least cost.

A transport problem: m documents, k clusters of m / k places. Two steps solve it:

1. Prices. With a price on each cluster, every document takes the cheapest cluster,
   argmin_j c_ij + p_j. Whatever the prices, no assignment of the same cluster sizes costs less
   (linear programming duality). Prices of overfull clusters are raised and those of others lowered
   until the sizes are nearly equal.
2. Shortest paths. Moving one document from cluster a to b costs at least
   min_{i in a} c_ib - c_ia, so that what is left is a problem on a graph of k nodes. Documents
   move along shortest paths from clusters that have too many to such as have too few, one path at
   a time, which keeps the assignment the cheapest of its sizes (successive shortest paths; Ahuja,
   Magnanti and Orlin 1993, "Network Flows", section 9.7). Copies of one document move together.

Time is that of at most a few hundred passes over the m * k costs, and of one small search for each
document that step 1 left in the wrong place. (A solver that assigns documents to single places
needs m * m costs.)
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.errors import ClusterError

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

# Rounds of prices at most, how much less each changes them than the last, and the share of
# documents in the wrong place at which they are near enough.
_ROUNDS, _CALMER, _NEAR = 150, 0.97, 0.002
# Prices of a similar problem are nearly right, and changed by so much less.
_WARM = 0.1
# A path must be shorter than another by so much of the largest cost, not by rounding alone.
_SHORTER = 1e-12


def balanced(costs: FloatArray, prices: FloatArray | None = None) -> tuple[IntArray, FloatArray]:
    """The cluster of each document, sizes within one of each other.

    Where k divides m no assignment to clusters of equal size costs less; else none of the sizes
    that were found.

    Args:
        costs: (m, k) finite, at least k documents.
        prices: (k,) to start from, those of a similar problem; 0 unless given.

    Returns:
        (m,) clusters from 0, and (k,) prices to start the next such problem from.

    Raises:
        ClusterError: costs have another shape, or are not finite.
    """
    if costs.ndim != 2 or not 1 <= costs.shape[1] <= len(costs):
        raise ClusterError("costs", costs.shape, "must have the shape (m, k) with m >= k >= 1")
    if not np.isfinite(costs).all():
        raise ClusterError("costs", costs.shape, "must be finite")
    rate = float(costs.std())
    if prices is None:
        found = _prices(costs, np.zeros(costs.shape[1]), rate)
    else:
        found = _prices(costs, prices, _WARM * rate)
    clusters: IntArray = (costs + found).argmin(axis=1)
    _Moves(costs, clusters).balance()
    return clusters, found


def _prices(costs: FloatArray, start: FloatArray, rate: float) -> FloatArray:
    """Prices under which sizes are nearly equal: the best of those tried."""
    documents, clusters = costs.shape
    share = documents / clusters
    prices, best, least = start, start, np.inf
    for _ in range(_ROUNDS):
        sizes = np.bincount((costs + prices).argmin(axis=1), minlength=clusters)
        wrong = np.maximum(sizes - share, 0.0).sum()
        if wrong < least:
            best, least = prices, wrong
        if wrong <= _NEAR * documents:
            break
        prices = prices + rate * np.clip(sizes / share - 1, -1.0, 1.0)
        rate *= _CALMER
    return best


class _Moves:
    """Documents that may move between clusters, and what the cheapest of each pair costs.

    Args:
        costs: (m, k).
        clusters: (m,), the cheapest of its sizes; changed in place.
    """

    def __init__(self, costs: FloatArray, clusters: IntArray) -> None:
        self._costs = costs
        self._clusters = clusters
        self._k = costs.shape[1]
        self._shorter = _SHORTER * float(np.abs(costs).max())
        self._sizes = np.bincount(clusters, minlength=self._k)
        # (k, k), from and to: the least cost of moving a document.
        self._least = np.full((self._k, self._k), np.inf)
        for cluster in range(self._k):
            self._look_again(cluster)

    def balance(self) -> None:
        """Move documents until sizes are within one."""
        fewest = len(self._costs) // self._k
        most = -(-len(self._costs) // self._k)
        while (self._sizes > most).any():
            self._move(most)
        while (self._sizes < fewest).any():
            self._move(fewest)

    def _move(self, size: int) -> None:
        """Documents from a cluster above this size to one below it, along the shortest path."""
        path = self._shortest(self._sizes > size, self._sizes < size)
        crowds = [self._as_cheap(a, b) for a, b in pairwise(path)]
        excess, room = self._sizes[path[0]] - size, size - self._sizes[path[-1]]
        number = min(excess, room, *(len(crowd) for crowd in crowds))
        for crowd, b in zip(crowds, path[1:], strict=True):
            self._clusters[crowd[:number]] = b
        self._sizes[path[0]] -= number
        self._sizes[path[-1]] += number
        for cluster in path:
            self._look_again(cluster)

    def _as_cheap(self, a: int, b: int) -> IntArray:
        """Documents that move from a to b at the least cost, of which copies have the same."""
        members = np.flatnonzero(self._clusters == a)
        moves = self._costs[members, b] - self._costs[members, a]
        cheap: IntArray = members[moves <= self._least[a, b] + self._shorter]
        return cheap

    def _shortest(self, sources: BoolArray, sinks: BoolArray) -> list[int]:
        """Clusters on the shortest path from any source to any sink (Bellman and Ford)."""
        distance = np.where(sources, 0.0, np.inf)
        before = np.full(self._k, -1)
        for _ in range(self._k):
            through = distance[:, None] + self._least
            best = through.argmin(axis=0)
            reached = through[best, np.arange(self._k)]
            shorter = reached < distance - self._shorter
            if not shorter.any():
                break
            distance = np.where(shorter, reached, distance)
            before = np.where(shorter, best, before)
        path = [int(np.where(sinks, distance, np.inf).argmin())]
        while before[path[-1]] >= 0:
            path.append(int(before[path[-1]]))
        return path[::-1]

    def _look_again(self, cluster: int) -> None:
        """Find the cheapest moves out of a cluster."""
        members = self._costs[self._clusters == cluster]
        self._least[cluster] = (members - members[:, [cluster]]).min(axis=0, initial=np.inf)
