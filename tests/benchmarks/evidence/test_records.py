"""Records are whole or not there, whoever writes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.evidence.records import Records, key_of
from tests.support.evidence import record


def test_what_was_appended_is_read_again(tmp_path: Path) -> None:
    records = Records(tmp_path / "below" / "records.jsonl")
    assert records.read() == {}
    one, two = record("default", "a", 1, [0.5, 1.0]), record("paper", "a", 1, [0.0, 1.0])
    records.append(one)
    records.append(two)
    assert Records(records.path).read() == {one.key: one, two.key: two}


def test_a_line_that_a_crash_cut_off_costs_itself_alone(tmp_path: Path) -> None:
    records = Records(tmp_path / "records.jsonl")
    one, two, three = (record("default", "a", seed, [0.5]) for seed in (1, 2, 3))
    records.append(one)
    records.append(two)
    whole = records.path.read_bytes()
    records.path.write_bytes(whole[:-40])
    records.append(three)
    assert list(records.read()) == [one.key, three.key]
    records.append(two)
    assert records.read() == {one.key: one, three.key: three, two.key: two}


def test_many_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    made = [record("default", "a", seed, [0.25] * 400) for seed in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda one: Records(path).append(one), made))
    assert Records(path).read() == {one.key: one for one in made}


def test_a_key_is_another_one_as_soon_as_anything_asked_is() -> None:
    assert key_of(["a", {"x": 1, "y": 2}]) == key_of(["a", {"y": 2, "x": 1}])
    assert key_of(["a", {"x": 1}]) != key_of(["a", {"x": 2}])
