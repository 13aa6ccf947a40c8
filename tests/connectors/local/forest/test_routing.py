"""Routed ensembles: weights of text, before each token, the same scored at once or written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.support.documents import TOPICS, documents_of
from tests.support.forests import as_elms, make_forest

from evomerge.connectors.local.engine_text import Speller
from evomerge.connectors.local.forest.elms import Elms
from evomerge.connectors.local.forest.ensemble import ForestScorer, Mixing
from evomerge.connectors.local.forest.routing import RoutedText, Routing
from evomerge.merging.forest.clusters import cluster
from evomerge.merging.forest.errors import ArgumentError
from evomerge.merging.forest.prior import Prior
from evomerge.merging.forest.router import Router

TEXT = "the harbour and the tide, naïve: oven and flour"


@pytest.fixture(scope="module")
def router() -> Router:
    return cluster([text for topic in TOPICS for text in documents_of(topic, 8)], 2).router


@pytest.fixture(scope="module")
def elms(tmp_path_factory: pytest.TempPathFactory) -> Elms:
    folder: Path = tmp_path_factory.mktemp("elms")
    return Elms(as_elms(make_forest(folder)), device="cpu", dtype="float32", threads=1)


def test_weights_are_of_the_text_before(router: Router, elms: Elms) -> None:
    tokenizer = elms.any().tokenizer
    tokens = tokenizer(TEXT)["input_ids"]
    routing, speller = Routing(router, (1, 0)), Speller(tokenizer)
    at_once = routing.log_weights(speller, tokens)
    text = RoutedText(routing, speller)
    for place, token in enumerate(tokens):
        np.testing.assert_allclose(text.weights(), np.exp(at_once[:, place]), atol=1e-12)
        text.observe(token)
    whole = np.exp(router.log_weights([TEXT])[0])
    np.testing.assert_allclose(text.weights(), whole[[1, 0]], atol=1e-9)


def test_what_is_scored_is_the_routed_mixture(router: Router, elms: Elms) -> None:
    scorer = ForestScorer(elms, batch_tokens=512)
    (row,) = scorer.rows([TEXT])
    routing = Routing(router, (1, 0))
    # The second ELM is of no cluster.
    mixing = Mixing(Prior.cached(np.array([0.5, 0.0, 0.5])), routing=routing)
    found = scorer.score([row], mixing)
    assert found.elms == (0, 2)
    (given,) = scorer.log_probs([row], (0, 2))
    log_weights = routing.log_weights(Speller(elms.any().tokenizer), row.tokens)[:, row.start :]
    expected = np.log((np.exp(log_weights) * np.exp(given)).sum(axis=0))
    np.testing.assert_allclose(found.log_probs[0], expected, atol=1e-9)


def test_a_routing_is_of_each_cluster_once(router: Router) -> None:
    for clusters in ((0,), (0, 0), (0, 1, 2)):
        with pytest.raises(ArgumentError, match="clusters"):
            Routing(router, clusters)
    with pytest.raises(ArgumentError, match="routing"):
        Mixing(Prior.uniform(3), routing=Routing(router, (1, 0)))
