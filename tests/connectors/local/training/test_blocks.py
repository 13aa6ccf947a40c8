"""Packed blocks: a part's tokens in rows, each epoch all of them in an order of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.connectors.local.training.blocks import Blocks, ShuffledBlocks
from evomerge.connectors.local.training.errors import TooFewTokensError
from evomerge.connectors.local.training.tokens import TokenCache


def cache_of(folder: Path, tokens: int, domain: str = "d") -> TokenCache:
    """A domain whose training tokens are 0, 1, 2, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    np.arange(tokens, dtype="<u2").tofile(folder / "train.tokens")
    np.arange(1000, 1000 + tokens, dtype="<u2").tofile(folder / "dev.tokens")
    return TokenCache(domain, "hash", folder, np.dtype("<u2"))


@given(tokens=st.integers(2, 200), length=st.integers(1, 40))
def test_blocks_predict_each_token_once_but_for_the_rest(
    tmp_path_factory: pytest.TempPathFactory, tokens: int, length: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"blocks-{tokens}"
    cache = cache_of(folder, tokens)
    if tokens < length + 1:
        with pytest.raises(TooFewTokensError):
            Blocks(cache, "train", length)
        return
    blocks = Blocks(cache, "train", length)
    rows = [blocks.row(place) for place in range(blocks.count)]
    assert all(row.shape == (length + 1,) and row.dtype == np.int64 for row in rows)
    targets = np.concatenate([row[1:] for row in rows])
    assert targets.tolist() == list(range(1, blocks.count * length + 1))
    assert tokens - 1 - len(targets) < length
    assert all((row[1:] == row[:-1] + 1).all() for row in rows)


def test_parts_are_never_mixed(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, 50)
    train, dev = Blocks(cache, "train", 7), Blocks(cache, "dev", 7)
    assert max(train.row(place).max() for place in range(train.count)) < 1000
    assert min(dev.row(place).min() for place in range(dev.count)) >= 1000


def test_too_few_tokens_are_named(tmp_path: Path) -> None:
    said = "domain 'd': its train documents give 16 tokens, a block needs 17"
    with pytest.raises(TooFewTokensError, match=said):
        Blocks(cache_of(tmp_path, 16), "train", 16)


def test_each_epoch_has_every_block_in_another_order(tmp_path: Path) -> None:
    blocks = Blocks(cache_of(tmp_path, 201), "train", 10)
    endless = ShuffledBlocks(blocks, seed=4)
    firsts = [int(endless.row(place)[0]) for place in range(60)]
    epochs = [firsts[start : start + 20] for start in (0, 20, 40)]
    assert all(sorted(epoch) == list(range(0, 200, 10)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_order_depends_on_seed_domain_and_place_alone(tmp_path: Path) -> None:
    def order(seed: int, domain: str, places: range) -> list[int]:
        blocks = Blocks(cache_of(tmp_path / domain, 201, domain), "train", 10)
        endless = ShuffledBlocks(blocks, seed)
        return [int(endless.row(place)[0]) for place in places]

    whole = order(4, "d", range(50))
    assert order(4, "d", range(33, 50)) == whole[33:]
    assert order(4, "d", range(49, -1, -1)) == whole[::-1]
    assert order(5, "d", range(50)) != whole
    assert order(4, "e", range(50)) != whole
