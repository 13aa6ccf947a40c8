"""Which pieces of which documents are scored."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.btm.texts import pieces

from evomerge.evaluation.corpus import Corpus, Shares, documents

SHARES = Shares(dev=0.3, test=0.4)


def corpus(folder: Path, count: int = 30) -> Corpus:
    path = folder / "poems.jsonl"
    rows = [{"text": "".join(f"{n} line {k}\n" for k in range(n + 3))} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Corpus("poems", path)


def test_pieces_are_of_the_part_alone_and_each_document_comes_first_once(tmp_path: Path) -> None:
    here = corpus(tmp_path)
    tested = [d.text for d in documents(here) if SHARES.part(d.digest) == "test"]
    found = pieces(here, SHARES, "test", count=200, characters=30)
    assert all(any(piece.text in text for text in tested) for piece in found)
    assert sorted({piece.document for piece in found}) == list(range(len(tested)))
    assert [piece.document for piece in found[: len(tested)]] == list(range(len(tested)))


def test_there_are_no_more_than_asked_for_and_each_is_so_long(tmp_path: Path) -> None:
    found = pieces(corpus(tmp_path), SHARES, "dev", count=5, characters=30)
    assert len(found) == 5
    assert {len(piece.text) for piece in found} == {30}


def test_no_piece_overlaps_another_of_its_document(tmp_path: Path) -> None:
    here = corpus(tmp_path, count=3)
    found = pieces(here, Shares(dev=0.0, test=0.999), "test", count=100, characters=10)
    texts = {(piece.document, piece.text) for piece in found}
    assert len(texts) == len(found)
