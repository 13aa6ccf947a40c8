"""What a seed is before it is trained: its tokenizer and its first weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.support.corpora import make_corpus
from tests.support.tiny import make_base

from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.training.architecture import (
    END_OF_TEXT,
    Architecture,
    first_weights,
    load_tokenizer,
    write_tokenizer,
)
from evomerge.connectors.local.training.errors import RecipeError
from evomerge.evaluation.corpus import Shares, documents

SHARES = Shares(dev=0.2, test=0.2)
SMALL = Architecture(vocabulary=300, hidden=16, layers=1, heads=2, kv_heads=1, intermediate=24)


def silent() -> None:
    pass


def test_a_trained_tokenizer_says_every_text_and_knows_its_corpus(tmp_path: Path) -> None:
    corpora = [make_corpus(tmp_path, "east"), make_corpus(tmp_path, "west")]
    words = write_tokenizer(SMALL, corpora, SHARES, tmp_path, silent)
    assert len(words) == 300
    assert words.eos_token == END_OF_TEXT
    for text in ("ünïcödé 漢字 🙂\n\ttabs", "", "a  b   c \r\n"):
        assert words.decode(words(text)["input_ids"]) == text
    own = next(documents(corpora[0])).text
    assert len(words(own)["input_ids"]) < 0.8 * len(own)
    assert load_tokenizer(tmp_path)(own)["input_ids"] == words(own)["input_ids"]


def test_the_same_documents_give_the_same_tokenizer(tmp_path: Path) -> None:
    corpora = [make_corpus(tmp_path, "east"), make_corpus(tmp_path, "west")]
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_tokenizer(SMALL, corpora, SHARES, tmp_path / name, silent)
        written.append((tmp_path / name / "tokenizer.json").read_bytes())
    assert written[0] == written[1]


def test_only_training_documents_are_read_and_no_more_bytes_than_asked(tmp_path: Path) -> None:
    """Whatever stands in the rest of the corpus, the tokenizer is the same."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    corpus = make_corpus(tmp_path, "east", 30)
    write_tokenizer(SMALL, [corpus], SHARES, tmp_path / "a", silent)
    rows = corpus.path.read_text().splitlines(keepends=True)
    read = list(documents(corpus))
    kept = [
        row
        for row, document in zip(rows, read, strict=True)
        if SHARES.part(document.digest) == "train"
    ]
    assert 0 < len(kept) < len(rows)
    corpus.path.write_text("".join(kept))
    write_tokenizer(SMALL, [corpus], SHARES, tmp_path / "b", silent)
    files = [tmp_path / name / "tokenizer.json" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    few = Architecture(vocabulary=300, tokenizer_bytes=1)
    (tmp_path / "c").mkdir()
    assert len(write_tokenizer(few, [corpus], SHARES, tmp_path / "c", silent)) == 257


def test_a_tokenizer_can_be_taken_from_a_folder(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    out = tmp_path / "out"
    out.mkdir()
    words = write_tokenizer(Architecture(tokenizer=base), [], SHARES, out, silent)
    assert len(words) == 257
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    with pytest.raises(BaseFolderError, match="tokenizer"):
        write_tokenizer(Architecture(tokenizer=tmp_path / "none"), [], SHARES, out, silent)


def test_first_weights_follow_the_seed_and_leave_the_generator_alone(tmp_path: Path) -> None:
    words = write_tokenizer(SMALL, [make_corpus(tmp_path, "east")], SHARES, tmp_path, silent)
    config = SMALL.config(words)
    before = torch.random.get_rng_state()
    one, same, other = (first_weights(config, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], other["lm_head.weight"])
    assert one["lm_head.weight"].shape == (300, 16)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vocabulary": 256}, "vocabulary=256: must be at least 257"),
        ({"hidden": 30, "heads": 4}, "hidden=30: must be an even multiple of heads=4"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads=3: must divide heads=4"),
        ({"layers": 0}, "layers=0"),
        ({"context": 0}, "context=0"),
        ({"tokenizer_bytes": 0}, "tokenizer_bytes=0"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Architecture(**changes)
