"""Clusters of documents."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
from tests.support.documents import TOPICS, documents_of

from evomerge.evaluation.errors import MissingLibraryError
from evomerge.merging.forest.clusters import cluster
from evomerge.merging.forest.errors import ArgumentError, ClusterError

DOCUMENTS = [text for topic in TOPICS for text in documents_of(topic, 25)]
OWNERS = np.repeat(np.arange(4), 25)


def test_topics_are_found() -> None:
    found = cluster(DOCUMENTS, 4, seed=1)
    for topic in range(4):
        assert len(set(found.labels[topic == OWNERS].tolist())) == 1
    assert sorted(np.bincount(found.labels).tolist()) == [25] * 4


def test_new_texts_find_their_topic() -> None:
    found = cluster(DOCUMENTS, 4, seed=1)
    for place, topic in enumerate(TOPICS):
        weights = np.exp(found.router.log_weights(documents_of(topic, 10, seed=5)))
        assert (weights.argmax(axis=1) == found.labels[25 * place]).all()
        assert weights.max(axis=1).min() > 0.9


def test_centres_are_the_means_of_what_the_router_embeds() -> None:
    found = cluster(DOCUMENTS, 3, seed=2, dimensions=10)
    vectors = found.router.embed(DOCUMENTS)
    assert vectors.shape == (100, 10)
    for number, centre in enumerate(found.router.centres):
        np.testing.assert_allclose(vectors[found.labels == number].mean(axis=0), centre, atol=1e-9)


def test_the_embedding_is_tf_idf_and_svd_of_scikit_learn() -> None:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    tf_idf = TfidfVectorizer(sublinear_tf=True)
    theirs = make_pipeline(tf_idf, TruncatedSVD(10, random_state=2), Normalizer())
    expected = theirs.fit_transform(DOCUMENTS)
    new = [*documents_of("sea", 3, seed=9), "the sea and a strange word"]
    router = cluster(DOCUMENTS, 3, seed=2, dimensions=10).router
    np.testing.assert_allclose(router.embed(DOCUMENTS), expected, atol=1e-9)
    np.testing.assert_allclose(router.embed(new), theirs.transform(new), atol=1e-9)


def test_one_seed_one_answer() -> None:
    one, again = cluster(DOCUMENTS, 7, seed=3), cluster(DOCUMENTS, 7, seed=3)
    np.testing.assert_array_equal(one.labels, again.labels)
    np.testing.assert_array_equal(one.router.centres, again.router.centres)


def test_unbalanced_each_is_with_its_nearest_centre() -> None:
    found = cluster(DOCUMENTS, 3, balance=False)
    nearest = found.router.log_weights(DOCUMENTS).argmax(axis=1)
    np.testing.assert_array_equal(found.labels, nearest)


def test_a_tick_may_stop_it() -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        cluster(DOCUMENTS, 3, tick=stop)


def test_copies_and_empty_documents_are_shared_out_too() -> None:
    found = cluster(["the same words"] * 10 + [""] * 5, 4)
    assert sorted(np.bincount(found.labels).tolist()) == [3, 4, 4, 4]


def test_as_many_clusters_as_documents_and_only_one() -> None:
    texts = DOCUMENTS[::20]
    assert sorted(cluster(texts, 5).labels.tolist()) == [0, 1, 2, 3, 4]
    assert cluster(texts, 1).labels.tolist() == [0] * 5


def test_the_commonest_words_are_kept() -> None:
    router = cluster(["rare often", "often twice", "twice often"], 1, words=2).router
    assert router.words == ("often", "twice")


@pytest.mark.parametrize("clusters", [0, -1, 101])
def test_refuses_so_many_clusters(clusters: int) -> None:
    with pytest.raises(ClusterError, match=f"clusters={clusters}: must be 1 to 100"):
        cluster(DOCUMENTS, clusters)


def test_refuses_what_is_out_of_range() -> None:
    with pytest.raises(ClusterError, match="no words"):
        cluster(["", "a b c", "..."], 2)
    with pytest.raises(ClusterError, match="dimensions=0"):
        cluster(DOCUMENTS, 2, dimensions=0)
    with pytest.raises(ClusterError, match="words=0"):
        cluster(DOCUMENTS, 2, words=0)
    with pytest.raises(ArgumentError, match="temperature=0"):
        cluster(DOCUMENTS, 2, temperature=0.0)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: object) -> object:
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingLibraryError, match=r"scikit-learn.*evo-merging\[forest\]"):
        cluster(DOCUMENTS, 2)
