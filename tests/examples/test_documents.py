"""Documents are cleaned, distinct, and whole on the disk."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from examples.documents import Distinct

from examples import documents

LICENCE = "Permission is hereby granted, free of charge, to any person who obtains a copy of it."


def story(name: str) -> str:
    said = f"of the story of {name}, which nobody else tells at such a length as this, not even"
    return "\n\n".join(f"Paragraph {n} {said} {n}." for n in range(6))


def test_text_is_cleaned() -> None:
    assert documents.clean("\ufeffa  \r\nb\x00\x0c\r\r\n\n\n\n\tc \n") == "a\nb\n\n\tc"


def test_a_paragraph_is_let_through_once_over_all_domains() -> None:
    distinct = Distinct()
    first = distinct.documents([f"{LICENCE}\n\n{story('one')}"], 10_000)
    other = f"{LICENCE.upper().replace(' ', '  ')}\n\n{story('two')}"
    assert first == [f"{LICENCE}\n\n{story('one')}"]
    assert distinct.documents([other], 10_000) == [story("two")]
    assert distinct.documents([story("one")], 10_000) == []


def test_the_order_comes_from_what_they_say_alone() -> None:
    texts = [story(str(n)) for n in range(5)]
    assert Distinct().documents(texts, 99_999) == Distinct().documents(texts[::-1] * 2, 99_999)


def test_a_domain_is_no_larger_than_allowed() -> None:
    texts = [story(str(n)) for n in range(20)]
    kept = Distinct().documents(texts, 2_000)
    assert 0 < len(kept) < 20
    assert sum(map(len, kept)) <= 2_000


def test_what_is_no_utf8_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("straße")
    (tmp_path / "packed.gz").write_bytes(gzip.compress("straße".encode()))
    (tmp_path / "old").write_bytes("straße".encode("latin-1"))
    files = [tmp_path / name for name in ("plain", "packed.gz", "old")]
    assert list(documents.read(files)) == ["straße", "straße"]


def test_pieces_are_joined_until_they_are_long_enough() -> None:
    assert list(documents.grouped(["aa", "bb", "cc"], 4, "-")) == ["aa-bb", "cc"]


def test_a_domain_is_one_file_of_a_document_a_line(tmp_path: Path) -> None:
    written = documents.write("tales", ["one\ntwo", "three\u2028four"], tmp_path)
    rows = [json.loads(line) for line in written.path.read_text().splitlines()]
    assert rows == [{"text": "one\ntwo"}, {"text": "three\u2028four"}]
    assert (written.documents, written.characters) == (2, 17)
    assert list(tmp_path.iterdir()) == [tmp_path / "tales.jsonl"]
    assert "tales" in documents.table([written])
