"""Contrasts: what they add up to, and how sure they say they are."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.btm.contrasts import Contrast, Measured, Term, behind, contrast


def measured(ahead: float, noise: float, seeds: int = 3, documents: int = 20) -> Measured:
    """Two domains read by two systems; `new` is so many nats a token ahead of `old`."""
    generator = np.random.default_rng(5)
    tokens = {name: generator.integers(50, 150, documents).astype(float) for name in ("a", "b")}
    old = {name: 3 * tokens[name] * np.ones((seeds, 1)) for name in tokens}
    new = {
        name: old[name]
        - tokens[name] * (ahead + noise * generator.standard_normal((seeds, documents)))
        for name in tokens
    }
    return Measured(tokens, {"old": old, "new": new})


def test_the_loss_is_the_mean_of_the_domains_means_a_token() -> None:
    tokens = {"a": np.array([1.0, 3.0]), "b": np.array([10.0])}
    nats = {"one": {"a": np.array([[2.0, 2.0], [4.0, 4.0]]), "b": np.array([[5.0], [15.0]])}}
    found = Measured(tokens, nats)
    assert found.loss("one", ["a", "b"]) == pytest.approx((6 / 4 + 1) / 2)
    assert found.perplexity("one", ["b"]) == pytest.approx(np.e)


def test_a_difference_beyond_chance_is_found_and_its_reverse_is_not() -> None:
    both = measured(ahead=0.1, noise=0.05)
    found = contrast(both, behind("new", "old", ["a", "b"]))
    assert found.value == pytest.approx(-0.1, abs=0.02)
    assert found.low < found.value < found.high < 0
    assert found.verdict == "found"
    assert contrast(both, behind("old", "new", ["a", "b"])).verdict == "not found"


def test_a_difference_within_chance_is_unclear() -> None:
    found = contrast(measured(ahead=0.0, noise=1.0), behind("new", "old", ["a", "b"]))
    assert found.low < 0 < found.high
    assert found.verdict == "unclear"


def test_seeds_that_disagree_widen_the_interval() -> None:
    calm = measured(ahead=0.1, noise=0.0)
    shifted = {
        name: nats + 40 * np.array([[-1], [0], [1]]) for name, nats in calm.nats["new"].items()
    }
    torn = Measured(calm.tokens, {**calm.nats, "new": shifted})
    assert contrast(calm, behind("new", "old", ["a"])).verdict == "found"
    assert contrast(torn, behind("new", "old", ["a"])).verdict == "unclear"


def test_terms_over_other_domains_add_up() -> None:
    both = measured(ahead=0.2, noise=0.01)
    terms = [Term(1.0, "new", ["a", "b"]), Term(-1.0, "new", ["a"])]
    expected = both.loss("new", ["a", "b"]) - both.loss("new", ["a"])
    assert contrast(both, terms).value == pytest.approx(expected)


def test_the_same_seed_gives_the_same_interval() -> None:
    both = measured(ahead=0.1, noise=0.5)
    terms = behind("new", "old", ["a", "b"])
    assert contrast(both, terms, seed=3) == contrast(both, terms, seed=3)


def test_a_limit_moves_the_verdict() -> None:
    assert Contrast(0.005, 0.001, 0.008).below(0.01) == "found"
    assert Contrast(0.005, 0.001, 0.012).below(0.01) == "unclear"
    assert Contrast(0.05, 0.02, 0.08).below(0.01) == "not found"
