"""Rows that several models read once: what was killed goes on to the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import ScoringCancelledError
from evomerge.connectors.local.forest import gathering
from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.elms import Elm, Elms
from evomerge.connectors.local.forest.gathering import Gathering
from evomerge.connectors.local.forest.log_probs import text_rows, token_log_probs
from evomerge.connectors.local.headers import content_hash
from evomerge.connectors.local.rows import Row

BATCH = 40
WORDS = ("ape", "bee", "cow and calf", "dog", "an eel")


@pytest.fixture
def rows(elms: list[BaseModel]) -> list[Row]:
    texts = [f"{WORDS[n % 5]} {n} {'x' * (n % 7)}" for n in range(60)]
    return text_rows(elms[0], [*texts, texts[3]])


@pytest.fixture
def gather(folders: dict[str, Path], rows: list[Row]) -> Callable[[Path], Gathering]:
    members = [Elm(name, folder, content_hash(folder)) for name, folder in folders.items()]

    def make(home: Path) -> Gathering:
        elms = Elms(members, device="cpu", threads=1, memory_bytes=0)
        return Gathering(elms, rows, LogProbCache(home), BATCH)

    return make


def stop_after(batches: int) -> Callable[[], bool]:
    left = batches

    def stopped() -> bool:
        nonlocal left
        left -= 1
        return left < 0

    return stopped


def test_every_model_reads_every_row(
    gather: Callable[[Path], Gathering], elms: list[BaseModel], rows: list[Row], tmp_path: Path
) -> None:
    found = gather(tmp_path).run()
    for place, base in enumerate(elms):
        alone = token_log_probs(base, rows, batch_tokens=BATCH)
        for of_row, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(of_row[place], expected, atol=1e-4)


def test_what_was_read_is_read_by_nobody_again(
    gather: Callable[[Path], Gathering],
    rows: list[Row],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = gather(tmp_path)
    # One row stands there twice, and is read once.
    assert first.planned == 3 * sum(len(row.tokens) for row in rows[:-1])
    found = first.run()
    assert first.tokens == first.planned
    again = gather(tmp_path)
    assert again.planned == 0

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was asked to read")

    monkeypatch.setattr(gathering, "token_log_probs", refuse)
    for one, other in zip(found, again.run(stop_after(0)), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("batches", [1, 9, 30, 50])
def test_a_reading_that_was_stopped_goes_on_to_the_same_bits(
    gather: Callable[[Path], Gathering], tmp_path: Path, batches: int
) -> None:
    expected = gather(tmp_path / "straight").run()
    stopped = gather(tmp_path / "stopped")
    with pytest.raises(ScoringCancelledError):
        stopped.run(stop_after(batches))
    rest = gather(tmp_path / "stopped")
    assert rest.planned == stopped.planned - stopped.tokens
    for one, other in zip(expected, rest.run(), strict=True):
        assert np.array_equal(one, other)


def test_only_one_model_is_in_memory_at_a_time(
    gather: Callable[[Path], Gathering], tmp_path: Path
) -> None:
    reading = gather(tmp_path)
    reading.run()
    assert len(reading._elms._held) == 1
