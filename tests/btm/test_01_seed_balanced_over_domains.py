"""Feature 1: seed training is balanced over domains: equal tokens a domain, within one batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tests.support.corpora import RECIPE, Grove

from evomerge.connectors.local.training.balance import BalancedBatches
from evomerge.connectors.local.training.blocks import Blocks
from evomerge.connectors.local.training.tokens import TokenCache

BLOCK = 4


def domain(folder: Path, name: str, number: int, blocks: int) -> Blocks:
    """A domain whose tokens are all its own number."""
    home = folder / f"{name}-{blocks}"
    home.mkdir(exist_ok=True)
    np.full(blocks * BLOCK + 1, number, "<u2").tofile(home / "train.tokens")
    return Blocks(TokenCache(name, "hash", home, np.dtype("<u2")), "train", BLOCK)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    batch=st.integers(1, 7),
    steps=st.integers(1, 20),
)
def test_tokens_of_domains_differ_by_a_block_at_most(
    tmp_path_factory: object, sizes: list[int], batch: int, steps: int
) -> None:
    folder = tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    domains = [domain(folder, f"d{n}", n, size) for n, size in enumerate(sizes)]
    batches = BalancedBatches(domains, batch, seed=3)
    seen = np.concatenate([batches.batch(step)[:, 1:].ravel() for step in range(steps)])
    counts = np.bincount(seen, minlength=len(sizes))
    assert counts.sum() == steps * batch * BLOCK
    assert counts.max() - counts.min() <= BLOCK
    told = batches.blocks_seen(steps)
    assert [told[f"d{n}"] * BLOCK for n in range(len(sizes))] == counts.tolist()


def test_a_seed_saw_as_many_tokens_of_a_small_domain_as_of_a_large_one(tmp_path: Path) -> None:
    grove = Grove(tmp_path)
    large = grove.corpus("large", 90)
    small = grove.corpus("small", 12)
    assert large.path.stat().st_size > 5 * small.path.stat().st_size
    grove.corpus = lambda domain, count=40: {"large": large, "small": small}[domain]  # type: ignore[method-assign]
    trained = grove.seed("large", "small")
    assert trained.domain_tokens == {
        "large": RECIPE.own_tokens // 2,
        "small": RECIPE.own_tokens // 2,
    }
    assert trained.own_tokens == trained.tokens == RECIPE.own_tokens
