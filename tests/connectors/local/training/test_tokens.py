"""The token cache: what the tokenizer says, once, whole or not there."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from tests.support.corpora import make_corpus
from tests.support.tiny import END_OF_TEXT, tokenizer

from evomerge.connectors.local.training.errors import ChangedCorpusError, StoppedTrainingError
from evomerge.connectors.local.training.tokens import TokenCache, token_cache
from evomerge.evaluation.corpus import PARTS, Corpus, Shares, documents, read_content

SHARES = Shares(dev=0.2, test=0.2)
END = 256


def silent() -> None:
    pass


def cached(corpus: Corpus, folder: Path, shares: Shares = SHARES) -> TokenCache:
    known = read_content(corpus).content_hash
    return token_cache(corpus, known, tokenizer(), shares, folder, silent)


def test_parts_hold_the_tokens_of_their_documents(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, "east", 60)
    cache = cached(corpus, tmp_path / "tokens")
    for part in PARTS:
        own = [each for each in documents(corpus) if SHARES.part(each.digest) == part]
        expected = [[*tokenizer()(each.text)["input_ids"], END] for each in own]
        assert own
        assert cache.tokens(part).tolist() == list(chain.from_iterable(expected))
        assert cache.ends(part).tolist() == np.cumsum([len(ids) for ids in expected]).tolist()
        assert cache.dtype == np.uint16
        assert isinstance(cache.tokens(part), np.memmap)
        assert not cache.tokens(part).flags.writeable


def test_text_that_spells_a_special_token_is_text(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": f"a{END_OF_TEXT}b"}))
    tokens = cached(Corpus("d", file), tmp_path / "tokens", Shares(0, 0)).tokens("train")
    assert tokens.tolist().count(END) == 1
    assert len(tokens) == len(f"a{END_OF_TEXT}b") + 1


def test_an_empty_part_is_empty(tmp_path: Path) -> None:
    cache = cached(make_corpus(tmp_path, "east"), tmp_path / "tokens", Shares(0, 0))
    assert cache.tokens("dev").shape == cache.ends("test").shape == (0,)


def test_the_cache_is_used_again_and_keyed_by_what_it_depends_on(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, "east")
    folder = tmp_path / "tokens"
    first = cached(corpus, folder)
    marker = first.folder / "seen"
    marker.write_text("")
    assert cached(corpus, folder).folder == first.folder
    assert marker.exists()
    moved = make_corpus(tmp_path / "elsewhere", "east")
    assert cached(moved, folder).folder == first.folder
    assert cached(corpus, folder, Shares(0.1, 0.2)).folder != first.folder
    assert cached(make_corpus(tmp_path, "east", 41), folder).folder != first.folder
    other = tokenizer()
    other.add_tokens(["xyz"])
    known = read_content(moved).content_hash
    assert token_cache(moved, known, other, SHARES, folder, silent).folder != first.folder


def test_a_large_vocabulary_takes_four_bytes_a_token(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, "east")
    words = tokenizer()
    words.add_tokens([f"<extra-{n}>" for n in range(2**16)])
    known = read_content(corpus).content_hash
    wide = token_cache(corpus, known, words, SHARES, tmp_path / "tokens", silent)
    assert wide.dtype == np.uint32
    narrow = cached(corpus, tmp_path / "tokens")
    assert wide.tokens("train").tolist() == narrow.tokens("train").tolist()


def test_a_corpus_that_changed_is_refused(tmp_path: Path) -> None:
    known = read_content(make_corpus(tmp_path, "east")).content_hash
    changed = make_corpus(tmp_path, "east", 41)
    with pytest.raises(ChangedCorpusError, match=r"'east'.* changed while it was read"):
        token_cache(changed, known, tokenizer(), SHARES, tmp_path / "tokens", silent)
    assert not list((tmp_path / "tokens").iterdir())


def test_a_stop_leaves_nothing_behind(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, "east", 600)
    ticks = iter([False, False, True])

    def tick() -> None:
        if next(ticks):
            raise StoppedTrainingError(0)

    known = read_content(corpus).content_hash
    with pytest.raises(StoppedTrainingError):
        token_cache(corpus, known, tokenizer(), SHARES, tmp_path / "tokens", tick)
    assert not list((tmp_path / "tokens").iterdir())


def test_several_that_write_the_same_at_once_end_with_one(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, "east", 300)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: cached(corpus, tmp_path / "tokens"), range(4)))
    assert [path.name for path in (tmp_path / "tokens").iterdir()] == [made[0].folder.name]
    assert len({cache.tokens("train").tobytes() for cache in made}) == 1
