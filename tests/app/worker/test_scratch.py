from __future__ import annotations

from pathlib import Path

from evomerge.app.db.repositories.queue import Lease
from evomerge.app.worker import scratch


def lease(token: int, job_id: str = "fj_1") -> Lease:
    return Lease(job_id, "one", token)


def names(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "scratch").iterdir())


def test_who_claims_a_job_later_has_what_was_kept(tmp_path: Path) -> None:
    first = scratch.take(tmp_path, lease(1))
    (first / "checkpoint").write_text("of step 7")
    second = scratch.take(tmp_path, lease(3))
    assert (second / "checkpoint").read_text() == "of step 7"
    # A worker that was taken for dead finds its folder gone, and writes into nobody's.
    assert not first.exists()
    (first / "late").parent.mkdir()
    (first / "late").write_text("of a worker taken for dead")
    third = scratch.take(tmp_path, lease(4))
    assert [path.name for path in third.iterdir()] == ["checkpoint"]
    assert names(tmp_path) == ["fj_1.4"]


def test_one_job_is_not_another(tmp_path: Path) -> None:
    mine, other = scratch.take(tmp_path, lease(1)), scratch.take(tmp_path, lease(1, "fj_10"))
    assert mine != other
    scratch.remove(tmp_path, "fj_1")
    assert names(tmp_path) == ["fj_10.1"]
    (kept,) = scratch.everything(tmp_path)
    assert (kept.job_id, kept.path) == ("fj_10", other)


def test_what_was_taken_meanwhile_is_not_discarded(tmp_path: Path) -> None:
    (scratch.take(tmp_path, lease(1)) / "checkpoint").write_text("x")
    (kept,) = scratch.everything(tmp_path)
    taken = scratch.take(tmp_path, lease(2))
    scratch.discard(kept)
    assert (taken / "checkpoint").read_text() == "x"
    (kept,) = scratch.everything(tmp_path)
    scratch.discard(kept)
    assert names(tmp_path) == []
