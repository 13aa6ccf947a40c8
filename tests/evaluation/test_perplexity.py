from __future__ import annotations

import numpy as np
import pytest

from evomerge.evaluation import InvalidArgumentError
from evomerge.evaluation.perplexity import seed_share, seed_share_sweep, table

TOKENS = {"a": np.array([4.0, 6.0]), "b": np.array([1.0, 1.0, 2.0])}
LOSSES = {
    "one": {"a": np.array([8.0, 6.0]), "b": np.array([3.0, 2.0, 7.0])},
    "other": {"a": np.array([4.0, 6.0]), "b": np.array([1.0, 1.0, 2.0])},
}


def test_a_domain_is_by_its_tokens_and_a_group_by_its_domains() -> None:
    one, other = table(LOSSES, TOKENS, {"a"}, seed=1)
    # 14 nats over 10 tokens, 12 over 4.
    assert one.domains["a"].value == pytest.approx(np.exp(1.4))
    assert one.domains["b"].value == pytest.approx(np.exp(3.0))
    assert one.all.value == pytest.approx(np.exp((1.4 + 3.0) / 2))
    assert one.trained.value == pytest.approx(np.exp(1.4))
    assert one.unseen.value == pytest.approx(np.exp(3.0))
    assert (one.trained.domains, one.unseen.domains, one.all.domains) == (1, 1, 2)
    assert other.all.value == pytest.approx(np.e)


def test_intervals_hold_the_value_and_are_the_same_for_the_same_seed() -> None:
    one, other = table(LOSSES, TOKENS, {"a"}, seed=1)
    for part in (one.domains["b"], one.unseen, one.all):
        assert part.value is not None
        assert part.interval is not None
        assert part.interval.low <= part.value <= part.interval.high
    # All of its documents have one loss a token.
    assert other.all.interval is not None
    assert other.all.interval.low == pytest.approx(other.all.interval.high)
    assert table(LOSSES, TOKENS, {"a"}, seed=1)[0] == one


def test_a_single_document_has_no_interval() -> None:
    (line,) = table({"m": {"a": np.array([3.0])}}, {"a": np.array([2.0])}, [], seed=1)
    assert line.domains["a"].interval is None
    assert line.trained.value is None
    assert line.unseen.value == pytest.approx(np.exp(1.5))


def test_a_model_that_broke_has_no_number() -> None:
    broken = {"m": {"a": np.array([np.inf, 1.0])}}
    (line,) = table(broken, {"a": np.array([2.0, 2.0])}, ["a"], seed=1)
    assert (line.domains["a"].value, line.domains["a"].interval) == (None, None)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match="must have the domains"):
        table({"m": {"a": np.array([1.0])}}, TOKENS, [], seed=1)
    with pytest.raises(InvalidArgumentError, match="at least 1"):
        table({"m": {"a": np.array([1.0])}}, {"a": np.array([0.0])}, [], seed=1)


def test_a_sweep_over_the_seed_s_share_follows_one_model() -> None:
    lines = table(LOSSES, TOKENS, {"a"}, seed=1)
    points = seed_share_sweep([(0.8, lines), (0.2, lines[::-1])], "other")
    assert [point.seed_share for point in points] == [0.2, 0.8]
    assert points[0].all == points[1].all == lines[1].all
    with pytest.raises(InvalidArgumentError, match="'third'"):
        seed_share_sweep([(0.5, lines)], "third")


def test_the_share_of_a_seed() -> None:
    assert seed_share(30, [40, 30]) == 0.3
    assert seed_share(0, [40]) is None
