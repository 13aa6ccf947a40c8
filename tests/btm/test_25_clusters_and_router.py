"""Feature 25: c-BTM clusters of sizes within one, and the router's weights softmax(-d^2 / T)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.documents import TOPICS, documents_of
from tests.support.elm_texts import log_probs_of

from evomerge.merging.forest.clusters import cluster
from evomerge.merging.forest.ensemble import mixture
from evomerge.merging.forest.router import TEMPERATURE, Router
from evomerge.merging.forest.top_k import keep_top

# Topics of very different size, which plain k-means would keep so.
DOCUMENTS = [
    text
    for topic, number in zip(TOPICS, (60, 20, 10, 7), strict=True)
    for text in documents_of(topic, number)
]


@pytest.mark.parametrize("clusters", [2, 3, 4, 8, 13])
def test_sizes_are_within_one(clusters: int) -> None:
    sizes = np.bincount(cluster(DOCUMENTS, clusters).labels, minlength=clusters)
    assert sizes.sum() == len(DOCUMENTS)
    assert sizes.max() - sizes.min() <= 1


def test_the_routers_weights() -> None:
    router = cluster(DOCUMENTS, 4).router
    texts = documents_of("sky", 3, seed=1)
    distances = np.linalg.norm(router.embed(texts)[:, None] - router.centres, axis=-1)
    assert TEMPERATURE == router.temperature == 0.1
    expected = np.exp(-(distances**2) / 0.1)
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.exp(router.log_weights(texts)), expected, rtol=1e-9)


def test_sparse_ensembles_per_token() -> None:
    router = cluster(DOCUMENTS, 4).router
    pieces = ["the harbour", " and an ", "oven", ", the jud", "ge and the orb", "it of a planet"]
    log_probs = log_probs_of(1, 4, len(pieces))
    kept = keep_top(router.token_log_weights(pieces), 2)
    found = mixture(log_probs, kept)
    for t in range(len(pieces)):
        weights = np.exp(router.log_weights(["".join(pieces[:t])])[0])
        two = np.argsort(-weights, kind="stable")[:2]
        mixed = weights[two] @ np.exp(log_probs[two, t]) / weights[two].sum()
        assert found[t] == pytest.approx(np.log(mixed))
    later = router.token_log_weights([*pieces[:3], "comet comet comet", *pieces[4:]])
    np.testing.assert_array_equal(router.token_log_weights(pieces)[:, :4], later[:, :4])
    assert abs(router.token_log_weights(pieces)[:, 4] - later[:, 4]).max() > 0.01


def test_stored_without_pickle_it_routes_alike(tmp_path: Path) -> None:
    router = cluster(DOCUMENTS, 4).router
    router.save(tmp_path / "router")
    loaded = Router.load(tmp_path / "router")
    np.testing.assert_array_equal(loaded.log_weights(DOCUMENTS), router.log_weights(DOCUMENTS))
    with np.load(tmp_path / "router" / "router.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
