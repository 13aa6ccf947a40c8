"""The real pool's rows, as its experts were trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks.evidence.pools import GLUE_KINDS, PoolError, RealRows, open_pool, real_pool


def write(folder: Path, name: str, prompts: list[str]) -> None:
    rows = [json.dumps({"prompt": p, "completion": str(n)}) for n, p in enumerate(prompts)]
    (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")


def test_the_last_rows_are_held_out_and_none_is_searched_on(tmp_path: Path) -> None:
    write(tmp_path, "re_nyt", [f"row {n % 290}" for n in range(300)])
    source = RealRows(tmp_path)
    held_out, search = source.rows("re_nyt", "held_out"), source.rows("re_nyt", "search")
    assert [row.completion for row in held_out] == [str(n) for n in range(240, 300)]
    # Ten rows ask what held-out rows ask.
    assert [row.completion for row in search] == [str(n) for n in range(10, 240)]


def test_kinds_of_glue_are_told_apart_by_their_prompts(tmp_path: Path) -> None:
    write(tmp_path, "glue_mixed", [f"{b} {n}" for n in range(30) for b in GLUE_KINDS.values()])
    source = RealRows(tmp_path)
    for task, begin in GLUE_KINDS.items():
        rows = [*source.rows(task, "search"), *source.rows(task, "held_out")]
        assert len(rows) == 30
        assert all(row.prompt.startswith(begin) for row in rows)
        assert len(source.rows(task, "held_out")) == 25


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(PoolError, match=r"re_nyt\.jsonl"):
        RealRows(tmp_path).check("re_nyt")
    with pytest.raises(PoolError, match="holds no expert ee_casie"):
        real_pool(tmp_path, tmp_path, base=tmp_path)
    with pytest.raises(PoolError, match="--experts"):
        open_pool("real", quick=False, repository=None, experts=None, data=tmp_path)
