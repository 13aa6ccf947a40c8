"""Log-probabilities of texts against transformers, which knows nothing of batches and windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import EmptyAnswerError, ScoringCancelledError
from evomerge.connectors.local.forest import log_probs
from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.errors import BrokenElmError
from evomerge.connectors.local.forest.log_probs import (
    block_rows,
    text_rows,
    token_log_probs,
    windows,
)
from evomerge.connectors.local.rows import Row

TEXTS = ["Berlin is in Germany", "a", "one two three " * 9, "2+2=4", "a"]


def reference(base: BaseModel, tokens: tuple[int, ...]) -> np.ndarray:
    """Of all tokens but the first, by one plain forward."""
    with torch.inference_mode():
        logits = base.model(torch.tensor([tokens])).logits[0, :-1].double()
    known = logits.log_softmax(1)[torch.arange(len(tokens) - 1), list(tokens[1:])]
    return np.asarray(known.numpy())


@pytest.fixture
def counted(elms: list[BaseModel], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each forward."""
    sizes: list[int] = []
    whole = log_probs.token_nll

    def counting(base: BaseModel, candidates: int, layout: log_probs.Layout) -> np.ndarray:
        sizes.append(len(layout.counts))
        return whole(base, candidates, layout)

    monkeypatch.setattr(log_probs, "token_nll", counting)
    return sizes


def test_every_token_of_a_text_is_scored(elms: list[BaseModel]) -> None:
    rows = text_rows(elms[0], TEXTS)
    for row, text, found in zip(
        rows, TEXTS, token_log_probs(elms[0], rows, batch_tokens=100), strict=True
    ):
        assert found.dtype == np.float64
        assert len(found) == len(text)
        np.testing.assert_allclose(found, reference(elms[0], row.tokens), atol=1e-4)


def test_a_prompt_is_given_and_the_rest_scored(elms: list[BaseModel]) -> None:
    row = Row(tuple(range(40, 60)), 12)
    [found] = token_log_probs(elms[1], [row], batch_tokens=64)
    np.testing.assert_allclose(found, reference(elms[1], row.tokens)[11:], atol=1e-4)


def test_blocks_are_scored_but_for_their_first_token(elms: list[BaseModel]) -> None:
    blocks = np.arange(64).reshape(2, 32)
    found = token_log_probs(elms[0], block_rows(blocks.tolist()), batch_tokens=64)
    for block, scored in zip(blocks, found, strict=True):
        np.testing.assert_allclose(scored, reference(elms[0], tuple(block)), atol=1e-4)


def test_a_long_text_is_read_in_windows_that_follow_each_other(elms: list[BaseModel]) -> None:
    row = Row(tuple(np.random.default_rng(1).integers(0, 256, 70).tolist()), 1)
    [found] = token_log_probs(elms[0], [row], batch_tokens=64, context_tokens=32)
    parts = [reference(elms[0], row.tokens[at : at + 33]) for at in (0, 32, 64)]
    np.testing.assert_allclose(found, np.concatenate(parts), atol=1e-4)


def test_windows_score_every_token_once() -> None:
    row = Row(tuple(range(100)), 45)
    for size in range(1, 120):
        scored = [token for part in windows(row, size) for token in part.tokens[part.start :]]
        assert scored == list(range(45, 100))
        assert all(len(part.tokens) <= size + 1 for part in windows(row, size))


def test_a_row_is_read_once_and_never_again(
    elms: list[BaseModel], counted: list[int], tmp_path: Path
) -> None:
    cache = LogProbCache(tmp_path / "cache")
    rows = text_rows(elms[0], TEXTS)
    first = token_log_probs(elms[0], rows, batch_tokens=64, cache=cache)
    assert sum(counted) == len(set(TEXTS))
    counted.clear()
    more = text_rows(elms[0], [*TEXTS, "new"])
    again = token_log_probs(elms[0], more, batch_tokens=64, cache=LogProbCache(tmp_path / "cache"))
    assert counted == [1]
    for one, other in zip(first, again, strict=False):
        assert (one == other).all()


def test_another_elm_or_window_is_another_entry(
    elms: list[BaseModel], counted: list[int], tmp_path: Path
) -> None:
    cache = LogProbCache(tmp_path)
    rows = text_rows(elms[0], TEXTS[:1])
    one = token_log_probs(elms[0], rows, batch_tokens=64, cache=cache)
    other = token_log_probs(elms[1], rows, batch_tokens=64, cache=cache)
    short = token_log_probs(elms[0], rows, batch_tokens=64, cache=cache, context_tokens=4)
    assert counted == [1, 1, 5]
    assert not np.allclose(one[0], other[0])
    assert not np.allclose(one[0], short[0])


def test_what_was_read_before_a_stop_is_kept(
    elms: list[BaseModel], counted: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_probs, "KEPT_AT_ONCE", 1)
    cache = LogProbCache(tmp_path)
    rows = block_rows([[n] * 120 for n in range(4)])
    asked = iter([False, False, True])
    with pytest.raises(ScoringCancelledError):
        token_log_probs(elms[0], rows, batch_tokens=1, cache=cache, stopped=lambda: next(asked))
    assert counted == [1, 1]
    token_log_probs(elms[0], rows, batch_tokens=1, cache=cache)
    assert counted == [1, 1, 1, 1]


def test_nothing_to_score_is_refused(elms: list[BaseModel]) -> None:
    with pytest.raises(EmptyAnswerError, match="row 1"):
        text_rows(elms[0], ["a", ""])
    with pytest.raises(EmptyAnswerError, match="row 1"):
        block_rows([[1, 2], [1]])


def test_broken_weights_are_told_of_and_nothing_is_kept(
    elms: list[BaseModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = text_rows(elms[0], ["a"])
    cache = LogProbCache(tmp_path)

    def broken(*_: object) -> np.ndarray:
        return np.full((1, 1), np.nan)

    with monkeypatch.context() as patched:
        patched.setattr(log_probs, "token_nll", broken)
        with pytest.raises(BrokenElmError, match="'ada' gives NaN"):
            token_log_probs(elms[0], rows, batch_tokens=64, cache=cache)
    [found] = token_log_probs(elms[0], rows, batch_tokens=64, cache=cache)
    assert np.isfinite(found).all()
