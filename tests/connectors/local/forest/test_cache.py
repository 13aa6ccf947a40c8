"""The cache of log-probabilities: what was kept comes back bit by bit, whoever keeps it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.errors import LogProbCacheError


def values(seed: int, size: int = 5) -> np.ndarray:
    """As they are computed: float32 numbers in float64."""
    drawn = -np.random.default_rng(seed).exponential(size=size)
    return drawn.astype(np.float32).astype(np.float64)


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    known = {f"row{n}": values(n) for n in range(1200)}
    LogProbCache(tmp_path / "new" / "folder").put("elm", known)
    found = LogProbCache(tmp_path / "new" / "folder").get("elm", [*known, "unknown"])
    assert found.keys() == known.keys()
    assert all((found[row] == known[row]).all() for row in known)


def test_nothing_is_known_of_another_elm_and_nothing_is_made_by_asking(tmp_path: Path) -> None:
    cache = LogProbCache(tmp_path / "cache")
    assert cache.get("elm", ["row"]) == {}
    cache.put("elm", {})
    assert not (tmp_path / "cache").exists()
    cache.put("elm", {"row": values(1)})
    assert cache.get("other", ["row"]) == {}


def test_the_first_that_was_kept_stays(tmp_path: Path) -> None:
    cache = LogProbCache(tmp_path)
    cache.put("elm", {"row": values(1)})
    cache.put("elm", {"row": values(2)})
    assert (cache.get("elm", ["row"])["row"] == values(1)).all()


def test_many_keep_at_once(tmp_path: Path) -> None:
    def keep(n: int) -> None:
        LogProbCache(tmp_path).put("elm", {f"row{n}": values(n), "all": values(0)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(keep, range(24)))
    found = LogProbCache(tmp_path).get("elm", [f"row{n}" for n in range(24)])
    assert all((found[f"row{n}"] == values(n)).all() for n in range(24))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "elm.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(LogProbCacheError, match=r"elm\.sqlite.*delete it"):
        LogProbCache(tmp_path).get("elm", ["row"])
