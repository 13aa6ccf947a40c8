"""Domains without metadata: clusters of documents.

That is c-BTM (Gururangan et al. 2023, arXiv 2303.14177). Documents are embedded by tf-idf and SVD
as `router` says, and put into clusters of equal size by k-means whose assignment is balanced
(`balance`), so that each ELM trains on as much as any other. Needs scikit-learn, from the extra
`forest`.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        labels: (m,), the cluster of each document; sizes are within one of each other.
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
) -> Clusters:
    """Put documents into clusters of equal size.

    Args:
        documents: m texts, at least as many as clusters.
        clusters: n.
        seed: of the SVD and of the first centres; the same gives the same clusters.
        dimensions: of the SVD at most; fewer where there are fewer documents or words.
        words: so many at most, those that occur most.
        temperature: the router's.

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
    known, directions, vectors = _embedded(documents, dimensions, words, seed)
    labels, centres = _balanced_k_means(vectors, clusters, seed)
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


def _balanced_k_means(vectors: FloatArray, clusters: int, seed: int) -> tuple[IntArray, FloatArray]:
    """Clusters of rows (m, d) and the means of their members (n, d)."""
    from sklearn.cluster import kmeans_plusplus

    centres, _ = kmeans_plusplus(vectors, clusters, random_state=seed)
    labels, prices = balanced(squared_distances(vectors, centres))
    for _ in range(ROUNDS):
        centres = _means(vectors, labels, clusters)
        before = labels
        labels, prices = balanced(squared_distances(vectors, centres), prices)
        if (labels == before).all():
            break
    return labels, _means(vectors, labels, clusters)


def _means(vectors: FloatArray, labels: IntArray, clusters: int) -> FloatArray:
    """(n, d); no cluster is empty."""
    return np.stack([vectors[labels == cluster].mean(axis=0) for cluster in range(clusters)])
