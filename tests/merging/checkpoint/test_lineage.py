"""elm.json: read as it was written, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.merging.checkpoint.errors import LineageFileError
from evomerge.merging.checkpoint.lineage import (
    Lineage,
    Parent,
    merged_lineage,
    read_lineage,
    write_lineage,
)

TEXTS = st.none() | st.text(min_size=1, max_size=20)
LINEAGES = st.builds(
    Lineage,
    seed_hash=TEXTS,
    domain=TEXTS,
    parents=st.lists(
        st.builds(Parent, st.text(max_size=9), st.floats(allow_nan=False, allow_infinity=False))
    ).map(tuple),
    tokens=st.integers(0, 10**15),
    own_tokens=st.integers(0, 10**15),
    corpus_hash=TEXTS,
    optimizer=st.sampled_from([None, "reset", "continue"]),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lineage=LINEAGES)
def test_is_read_as_it_was_written(tmp_path: Path, lineage: Lineage) -> None:
    write_lineage(tmp_path, lineage)
    assert read_lineage(tmp_path) == lineage
    assert [path.name for path in tmp_path.iterdir()] == ["elm.json"]


def test_a_checkpoint_without_one_is_a_seed(tmp_path: Path) -> None:
    assert read_lineage(tmp_path) == Lineage()
    assert Lineage().root("own") == "own"
    assert Lineage("seed").root("own") == "seed"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "is not of format 1"),
        ({"format": 2}, "is not of format 1"),
        ({"tokens": 5}, "is not of format 1"),
        ({"format": 1, "seed": "x"}, "unknown field 'seed'"),
        ({"format": 1, "seed_hash": 5}, "seed_hash=5: must be a text or null"),
        ({"format": 1, "domain": ""}, "domain='': must be a text"),
        ({"format": 1, "tokens": -1}, "tokens=-1: must be a whole number"),
        ({"format": 1, "tokens": True}, "tokens=True: must be a whole number"),
        ({"format": 1, "own_tokens": 1.5}, "own_tokens=1.5: must be a whole number"),
        ({"format": 1, "optimizer": "keep"}, "optimizer='keep': must be reset"),
        ({"format": 1, "parents": 3}, "parents=3: must list"),
        ({"format": 1, "parents": [{"weight": 1}]}, "must list content_hash and weight"),
    ],
)
def test_names_what_is_wrong(tmp_path: Path, content: object, reason: str) -> None:
    (tmp_path / "elm.json").write_text(json.dumps(content))
    with pytest.raises(LineageFileError, match=reason):
        read_lineage(tmp_path)


def test_a_merge_has_the_kept_for_parents_and_their_share_of_tokens() -> None:
    members = [Lineage("s", tokens=100), Lineage("s", tokens=200), Lineage("s", tokens=999)]
    merged = merged_lineage("s", members, ["a", "b", "c"], [0.5, -1.5, 0])
    assert merged.seed_hash == "s"
    assert merged.parents == (Parent("a", 0.5), Parent("b", -1.5))
    assert merged.tokens == 175
    assert merged_lineage("s", members, ["a", "b", "c"], [0, 0, 0]).tokens == 0
