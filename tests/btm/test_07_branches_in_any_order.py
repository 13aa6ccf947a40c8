"""Feature 7: branches in parallel and in any order give the same weights."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.support.corpora import Grove, bytes_of

from evomerge.connectors.local.training.run import Elm

DOMAINS = ("desert", "forest", "tundra")


def branch(folder: Path, parent: Elm, domain: str) -> str:
    Grove(folder).branch([parent], domain)
    return domain


def weights(folder: Path) -> dict[str, object]:
    return {domain: bytes_of(folder / domain) for domain in DOMAINS}


def test_order_does_not_matter(tmp_path: Path, seed: Elm) -> None:
    for domain in DOMAINS:
        branch(tmp_path / "one", seed, domain)
    for domain in reversed(DOMAINS):
        branch(tmp_path / "other", seed, domain)
    assert weights(tmp_path / "one") == weights(tmp_path / "other")
    hashes = {str(each) for each in weights(tmp_path / "one").values()}
    assert len(hashes) == len(DOMAINS)


def test_processes_at_once_do_not_matter(tmp_path: Path, seed: Elm) -> None:
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=fresh) as pool:
        jobs = [pool.submit(branch, tmp_path / "at-once", seed, domain) for domain in DOMAINS]
        assert {job.result() for job in jobs} == set(DOMAINS)
    for domain in DOMAINS:
        branch(tmp_path / "in-turn", seed, domain)
    assert weights(tmp_path / "at-once") == weights(tmp_path / "in-turn")
