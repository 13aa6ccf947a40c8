"""Feature 16: the prior never reads test texts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from tests.support.elm_texts import log_probs_of

from evomerge.merging.forest.ensemble import score_texts
from evomerge.merging.forest.prior import Prior, estimate


def texts(first: int, number: int) -> list[np.ndarray]:
    return [log_probs_of(seed, 4, 8) for seed in range(first, first + number)]


def test_whatever_is_tested_the_prior_is_the_same() -> None:
    development = texts(0, 30)
    priors = []
    for first in (1000, 2000):
        prior = Prior.cached(estimate(development))
        _, after = score_texts(texts(first, 10), prior)
        priors.append(after.weights)
    np.testing.assert_array_equal(priors[0], priors[1])


def test_a_test_text_alone_scores_as_among_others() -> None:
    prior = Prior.cached(estimate(texts(0, 30)))
    tested = texts(1000, 5)
    together, _ = score_texts(tested, prior)
    for text, found in zip(tested, together, strict=True):
        (alone,), _ = score_texts([text], prior)
        np.testing.assert_array_equal(found, alone)


def test_what_follows_the_development_texts_is_not_even_drawn() -> None:
    def development_then_test() -> Iterator[np.ndarray]:
        yield from texts(0, 100)
        pytest.fail("a test text was drawn for the prior")

    assert estimate(development_then_test()).sum() == pytest.approx(1)
