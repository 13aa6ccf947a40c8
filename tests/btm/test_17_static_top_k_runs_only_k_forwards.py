"""Feature 17: top-k static and per token. With k = n it is the dense ensemble; a static top-k runs
only k forwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.tiny import make_base

from evomerge.connectors.local.forest.elms import Elm, Elms
from evomerge.connectors.local.forest.ensemble import ForestScorer, Mixing
from evomerge.merging.forest.ensemble import score
from evomerge.merging.forest.prior import Prior

N = 4
PRIOR = np.array([0.1, 0.4, 0.2, 0.3])
TEXTS = ["Berlin is in Germany", "one two three", "2+2=4"]


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Elms:
    root = tmp_path_factory.mktemp("forest")
    elms = [Elm(f"elm{n}", make_base(root / f"elm{n}", seed=n)) for n in range(N)]
    return Elms(elms, device="cpu", threads=1)


@pytest.fixture
def forwards(forest: Elms) -> Iterator[list[int]]:
    """Places of the ELMs whose decoders ran, in order."""
    ran: list[int] = []
    hooks = [
        forest.model(place).decoder.register_forward_hook(
            lambda *_, place=place: ran.append(place)  # type: ignore[misc]
        )
        for place in range(N)
    ]
    yield ran
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("kind", ["static", "token"])
@pytest.mark.parametrize("history", ["full", "previous"])
def test_with_all_elms_it_is_the_dense_ensemble(forest: Elms, kind: str, history: str) -> None:
    scorer = ForestScorer(forest, batch_tokens=256)
    rows = scorer.rows(TEXTS)
    prior = Prior.cached(PRIOR)
    dense = scorer.score(rows, Mixing(prior, history))
    whole = scorer.score(rows, Mixing(prior, history, N, kind))
    for one, other in zip(dense.log_probs, whole.log_probs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("k", range(1, N + 1))
def test_a_static_top_k_runs_only_k_forwards(forest: Elms, forwards: list[int], k: int) -> None:
    scorer = ForestScorer(forest, batch_tokens=256)
    rows = scorer.rows(TEXTS)
    forwards.clear()
    scorer.score(rows, Mixing(Prior.cached(PRIOR), top_k=k, top_k_kind="static"))
    assert forwards == sorted(np.argsort(-PRIOR)[:k].tolist())


def test_a_static_top_k_never_loads_the_others(forest: Elms) -> None:
    """An ELM that does not run may be away."""
    elms = [*forest.elms[:3], Elm("gone", Path("/nonexistent"))]
    scorer = ForestScorer(Elms(elms, device="cpu", threads=1), batch_tokens=256)
    prior = Prior.cached(np.array([0.1, 0.5, 0.4, 0.0]))
    scored = scorer.score(scorer.rows(TEXTS), Mixing(prior, top_k=2, top_k_kind="static"))
    assert scored.elms == (1, 2)


@pytest.mark.parametrize("k", range(1, N + 1))
def test_a_top_k_per_token_mixes_the_k_largest_at_each_token(
    forest: Elms, forwards: list[int], k: int
) -> None:
    scorer = ForestScorer(forest, batch_tokens=256)
    rows = scorer.rows(TEXTS)
    known = scorer.log_probs(rows)
    forwards.clear()
    scored = scorer.score(rows, Mixing(Prior.cached(PRIOR), top_k=k))
    assert forwards == list(range(N))
    for found, log_probs in zip(scored.log_probs, known, strict=True):
        weights, expected = PRIOR.copy(), []
        for column in np.exp(log_probs).T:
            kept = np.argsort(-weights, kind="stable")[:k]
            mixed = weights[kept] @ column[kept] / weights[kept].sum()
            expected.append(np.log(mixed))
            weights = weights * column / (weights @ column)
        np.testing.assert_allclose(found, expected, atol=1e-9)
        np.testing.assert_allclose(found, score(log_probs, np.log(PRIOR), top_k=k), atol=1e-9)


def test_forwards_are_counted_where_they_happen(forest: Elms, forwards: list[int]) -> None:
    """The count above is of real forwards: one more is seen."""
    with forest.model(2).running():
        forest.model(2).hidden(torch.tensor([[1, 2, 3]]))
    assert forwards == [2]
