"""Domains without metadata: clusters of documents.

That is c-BTM (Gururangan et al. 2023, arXiv 2303.14177). Documents are embedded by tf-idf and SVD
as `router` says, and put into clusters of equal size by k-means whose assignment is balanced
(`balance`), so that each ELM trains on as much as any other. Needs scikit-learn, from the extra
`forest`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.errors import MissingLibraryError
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.balance import balanced
from evomerge.merging.forest.errors import ClusterError
from evomerge.merging.forest.router import (
    TEMPERATURE,
    Router,
    squared_distances,
    unit,
    words_of,
)

IntArray = NDArray[np.int64]

DIMENSIONS = 100
WORDS = 50_000
ROUNDS = 30


@dataclass(frozen=True)
class Clusters:
    """Documents in clusters, and how other texts find theirs.

    Attributes:
        labels: (m,), the cluster of each document; where they are balanced, sizes are within one
            of each other.
        router: see `Router`.
    """

    labels: IntArray
    router: Router


def cluster(
    documents: Sequence[str],
    clusters: int,
    *,
    seed: int = 0,
    dimensions: int = DIMENSIONS,
    words: int = WORDS,
    temperature: float = TEMPERATURE,
    balance: bool = True,
    tick: Callable[[], None] = lambda: None,
) -> Clusters:
    """Put documents into clusters, of equal size unless `balance` says otherwise.

    Args:
        documents: m texts, at least as many as clusters.
        clusters: n.
        seed: of the SVD and of the first centres; the same gives the same clusters.
        dimensions: of the SVD at most; fewer where there are fewer documents or words.
        words: so many at most, those that occur most.
        temperature: the router's.
        balance: whether sizes are within one of each other; else each document is in the cluster
            of its nearest centre.
        tick: called between the steps of the computation; may raise to stop it.

    Raises:
        ClusterError: so many clusters cannot be made, the documents have no words, or dimensions
            or words are out of range.
        ArgumentError: the temperature is not above 0.
        MissingLibraryError: scikit-learn is not installed.
    """
    if not 1 <= clusters <= len(documents):
        reason = f"must be 1 to {len(documents)}, the number of documents"
        raise ClusterError("clusters", clusters, reason)
    for field, value in (("dimensions", dimensions), ("words", words)):
        if value < 1:
            raise ClusterError(field, value, "must be at least 1")
    tick()
    known, directions, vectors = _embedded(documents, dimensions, words, seed)
    tick()
    labels, centres = _k_means(vectors, clusters, seed, balance, tick)
    return Clusters(labels, Router(known, directions, centres, temperature))


def _embedded(
    documents: Sequence[str], dimensions: int, most: int, seed: int
) -> tuple[tuple[str, ...], FloatArray, FloatArray]:
    """Words, their directions (w, d), and the documents (m, d) of length 1 or 0."""
    try:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise MissingLibraryError("scikit-learn", "clustering documents", "forest") from error
    if not any(words_of(document) for document in documents):
        raise ClusterError("documents", len(documents), "hold no words")
    # The analyzer is the router's, so that both count the same words.
    tf_idf = TfidfVectorizer(analyzer=words_of, max_features=most, sublinear_tf=True)
    weights = tf_idf.fit_transform(documents)
    known = tuple(str(word) for word in tf_idf.get_feature_names_out())
    svd = TruncatedSVD(min(dimensions, *weights.shape), random_state=seed).fit(weights)
    directions = svd.components_.T
    return known, tf_idf.idf_[:, None] * directions, unit(weights @ directions)


def _k_means(
    vectors: FloatArray, clusters: int, seed: int, balance: bool, tick: Callable[[], None]
) -> tuple[IntArray, FloatArray]:
    """Clusters of rows (m, d) and the means of their members (n, d)."""
    from sklearn.cluster import kmeans_plusplus

    centres, _ = kmeans_plusplus(vectors, clusters, random_state=seed)
    assign = _Balanced() if balance else _nearest
    labels = assign(squared_distances(vectors, centres))
    for _ in range(ROUNDS):
        tick()
        centres = _means(vectors, labels, clusters)
        before = labels
        labels = assign(squared_distances(vectors, centres))
        if (labels == before).all():
            break
    return labels, _means(vectors, labels, clusters)


class _Balanced:
    """Clusters of equal size for rows of distances (m, n); the last prices begin the next."""

    def __init__(self) -> None:
        self._prices: FloatArray | None = None

    def __call__(self, distances: FloatArray) -> IntArray:
        labels, self._prices = balanced(distances, self._prices)
        return labels


def _nearest(distances: FloatArray) -> IntArray:
    """The cluster of least distance to each row (m, n)."""
    labels: IntArray = distances.argmin(axis=1)
    return labels


def _means(vectors: FloatArray, labels: IntArray, clusters: int) -> FloatArray:
    """(n, d).

    Raises:
        ClusterError: a cluster is empty.
    """
    if (np.bincount(labels, minlength=clusters) == 0).any():
        raise ClusterError("clusters", clusters, "one of them stays empty: ask for fewer")
    return np.stack([vectors[labels == cluster].mean(axis=0) for cluster in range(clusters)])
