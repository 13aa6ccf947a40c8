"""Texts scored by an ensemble, against mixtures computed here by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.forest import ensemble
from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.elms import Elm, Elms
from evomerge.connectors.local.forest.ensemble import ForestScorer, Mixing
from evomerge.connectors.local.forest.log_probs import text_rows, token_log_probs
from evomerge.connectors.local.rows import Row
from evomerge.merging.forest.errors import ArgumentError, LogProbsError, TopKError
from evomerge.merging.forest.prior import Prior

TEXTS = ["Berlin is in Germany", "a", "one two three", "2+2=4"]
PRIOR = np.array([0.2, 0.5, 0.3])


@pytest.fixture
def forest(folders: dict[str, Path]) -> Elms:
    return Elms([Elm(*one) for one in folders.items()], device="cpu", threads=1)


@pytest.fixture
def scorer(forest: Elms) -> ForestScorer:
    return ForestScorer(forest, batch_tokens=128)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the ELMs that read, in order."""
    names: list[str] = []
    whole = ensemble.token_log_probs

    def noting(base: BaseModel, *rest: object, **options: object) -> object:
        names.append(base.name)
        return whole(base, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ensemble, "token_log_probs", noting)
    return names


def known(elms: list[BaseModel], rows: list[Row]) -> list[np.ndarray]:
    by_elm = [token_log_probs(base, rows, batch_tokens=128) for base in elms]
    return [np.stack(of_row) for of_row in zip(*by_elm, strict=True)]


def by_hand(log_probs: np.ndarray, prior: np.ndarray) -> list[float]:
    """Token by token, with plain probabilities."""
    weights, mixed = prior.copy(), []
    for column in np.exp(log_probs).T:
        mixed.append(float(np.log(weights @ column)))
        weights = weights * column / (weights @ column)
    return mixed


def test_log_probs_are_those_of_each_elm_in_order(
    scorer: ForestScorer, elms: list[BaseModel]
) -> None:
    rows = text_rows(elms[0], TEXTS)
    assert scorer.rows(TEXTS) == rows
    for found, expected in zip(scorer.log_probs(rows), known(elms, rows), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    for found, expected in zip(scorer.log_probs(rows, [2, 0]), known(elms, rows), strict=True):
        np.testing.assert_allclose(found, expected[[2, 0]], atol=1e-9)


def test_texts_are_mixed_under_the_prior(scorer: ForestScorer, elms: list[BaseModel]) -> None:
    rows = scorer.rows(TEXTS)
    scored = scorer.score(rows, Mixing(Prior.cached(PRIOR)))
    for found, log_probs in zip(scored.log_probs, known(elms, rows), strict=True):
        np.testing.assert_allclose(found, by_hand(log_probs, PRIOR), atol=1e-9)
    assert scored.elms == (0, 1, 2)
    assert (scored.prior.weights == PRIOR).all()


def test_a_static_top_k_is_the_forest_of_those_elms(
    scorer: ForestScorer, elms: list[BaseModel], read: list[str]
) -> None:
    rows = scorer.rows(TEXTS)
    scored = scorer.score(rows, Mixing(Prior.cached(PRIOR), top_k=2, top_k_kind="static"))
    assert read == ["bob", "cyd"]
    assert scored.elms == (1, 2)
    pair = PRIOR[1:] / PRIOR[1:].sum()
    for found, log_probs in zip(scored.log_probs, known(elms[1:], rows), strict=True):
        np.testing.assert_allclose(found, by_hand(log_probs, pair), atol=1e-9)


def test_a_top_k_per_token_reads_with_every_elm(scorer: ForestScorer, read: list[str]) -> None:
    rows = scorer.rows(TEXTS)
    top = scorer.score(rows, Mixing(Prior.cached(PRIOR), top_k=1))
    assert read == ["ada", "bob", "cyd"]
    all_ = scorer.score(rows, Mixing(Prior.cached(PRIOR)))
    assert not np.allclose(np.concatenate(top.log_probs), np.concatenate(all_.log_probs))


def test_an_updated_prior_moves_from_text_to_text(scorer: ForestScorer) -> None:
    rows = scorer.rows(TEXTS)
    mixing = Mixing(Prior.updating(PRIOR))
    scored = scorer.score(rows, mixing)
    one = scorer.score(rows[:1], mixing)
    rest = scorer.score(rows[1:], Mixing(one.prior))
    for found, expected in zip(scored.log_probs, [*one.log_probs, *rest.log_probs], strict=True):
        # Texts alone are in other batches than together.
        np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(scored.prior.weights, rest.prior.weights, atol=1e-4)
    assert not np.allclose(scored.prior.weights, PRIOR)


def test_the_prior_is_estimated_on_no_more_texts_than_asked(scorer: ForestScorer) -> None:
    rows = scorer.rows(TEXTS)
    uniform = np.full(3, 1 / 3)
    moved = Prior.updating(uniform).after(scorer.log_probs(rows[:1])[0])
    np.testing.assert_allclose(scorer.prior(rows, limit=1), moved.weights, atol=1e-4)
    with pytest.raises(ArgumentError, match="limit=0"):
        scorer.prior(rows, limit=0)
    with pytest.raises(ArgumentError, match="at least one development text"):
        scorer.prior([])


def test_elms_that_take_turns_in_memory_score_alike(
    folders: dict[str, Path], scorer: ForestScorer, tmp_path: Path
) -> None:
    elms = Elms([Elm(*one) for one in folders.items()], device="cpu", threads=1, memory_bytes=1)
    turns = ForestScorer(elms, batch_tokens=128, cache=LogProbCache(tmp_path))
    rows = turns.rows(TEXTS)
    mixing = Mixing(Prior.cached(PRIOR), history="previous")
    expected = scorer.score(rows, mixing).log_probs
    for _ in range(2):
        for found, other in zip(turns.score(rows, mixing).log_probs, expected, strict=True):
            np.testing.assert_allclose(found, other, atol=1e-9)


def test_what_does_not_fit_the_forest_is_refused(scorer: ForestScorer) -> None:
    with pytest.raises(TopKError, match="top_k=4"):
        Mixing(Prior.cached(PRIOR), top_k=4)
    with pytest.raises(LogProbsError, match="is of 2 ELMs, there are 3"):
        scorer.score(scorer.rows(TEXTS), Mixing(Prior.uniform(2)))
