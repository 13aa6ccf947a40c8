from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pytest

from evomerge.evaluation.corpus import Corpus, EmptyDomainError, documents, read_content


def test_one_pass_tells_hash_count_and_size(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first é")
    (tmp_path / "b.txt").write_text("second")
    corpus = Corpus("letters", tmp_path)
    ticks: list[None] = []
    found = read_content(corpus, lambda: ticks.append(None))
    expected = sha256(b"".join(document.digest for document in documents(corpus)))
    assert found.content_hash == expected.hexdigest()
    assert (found.documents, found.bytes, len(ticks)) == (2, 8 + 6, 2)


def test_where_documents_lie_says_nothing_and_their_order_does(tmp_path: Path) -> None:
    for folder, names in (("one", "ab"), ("other", "xy"), ("turned", "yx")):
        (tmp_path / folder).mkdir()
        for name, text in zip(names, ("first", "second"), strict=True):
            (tmp_path / folder / f"{name}.txt").write_text(text)
    one, other, turned = (
        read_content(Corpus("d", tmp_path / folder)).content_hash
        for folder in ("one", "other", "turned")
    )
    assert one == other != turned


def test_an_empty_corpus_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmptyDomainError, match="'letters'"):
        read_content(Corpus("letters", tmp_path))
