"""Whole runs: what they write, what they refuse, and that nothing is half-written."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.support.corpora import ARCHITECTURE, RECIPE, Grove, bytes_of, make_corpus
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.headers import content_hash
from evomerge.connectors.local.training.errors import (
    ChangedRunError,
    RecipeError,
    TooFewTokensError,
)
from evomerge.connectors.local.training.run import (
    Corpus,
    Elm,
    Progress,
    Recipe,
    StoppedTrainingError,
    Trained,
    train_seed,
)
from evomerge.evaluation.corpus import DocumentError, DomainError, EmptyDomainError, read_content
from evomerge.merging.checkpoint.lineage import Lineage, read_lineage


def seed_of(tmp_path: Path, *corpora: Corpus, recipe: Recipe = RECIPE) -> Trained:
    return train_seed(
        corpora,
        ARCHITECTURE,
        recipe,
        scratch=tmp_path / "scratch",
        out=tmp_path / "out",
        threads=1,
    )


def test_a_seed_is_a_checkpoint_that_loads_everywhere(tmp_path: Path) -> None:
    corpora = [make_corpus(tmp_path, "east"), make_corpus(tmp_path, "west")]
    trained = seed_of(tmp_path, *corpora)
    model = AutoModelForCausalLM.from_pretrained(trained.folder)
    words = AutoTokenizer.from_pretrained(trained.folder)
    assert model.config.vocab_size == len(words)
    assert model.dtype == torch.float32
    base = load_base(trained.folder, threads=1)
    assert base.content_hash == trained.content_hash == content_hash(trained.folder)
    assert base.context_tokens == ARCHITECTURE.context
    assert read_lineage(trained.folder) == trained.lineage
    assert trained.lineage == Lineage(
        tokens=RECIPE.own_tokens,
        own_tokens=RECIPE.own_tokens,
        corpus_hash=trained.lineage.corpus_hash,
    )
    assert set(trained.dev_losses) == {"east", "west"}
    assert trained.dev_loss == pytest.approx(sum(trained.dev_losses.values()) / 2)
    assert trained.perplexity == pytest.approx(math.exp(trained.dev_loss or 0))
    # Better than knowing nothing.
    assert trained.train_loss < math.log(len(words))


def test_the_order_of_the_domains_says_nothing(tmp_path: Path) -> None:
    corpora = [make_corpus(tmp_path, "east"), make_corpus(tmp_path, "west")]
    one = seed_of(tmp_path / "one", *corpora)
    other = seed_of(tmp_path / "other", *corpora[::-1])
    assert one.content_hash == other.content_hash
    assert one.lineage == other.lineage


def test_a_branch_tells_its_corpus_and_keeps_the_tokenizer(grove: Grove, seed: Elm) -> None:
    trained = grove.branch([seed], "east", name="told")
    assert trained.lineage.corpus_hash == read_content(grove.corpus("east")).content_hash
    for name in ("tokenizer.json", "tokenizer_config.json"):
        own, other = trained.folder / name, seed.folder / name
        assert own.read_bytes() == other.read_bytes()
    assert {path.name for path in trained.folder.iterdir()} == {
        "config.json",
        "elm.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_training_learns_its_domain(grove: Grove, seed: Elm) -> None:
    long = grove.branch([seed], "north", name="long", tokens=100 * 64)
    short = grove.branch([seed], "north", name="short", tokens=64)
    assert long.dev_losses["north"] < short.dev_losses["north"] - 0.5


def test_a_token_cache_can_be_shared(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, "east")
    made = [
        train_seed(
            [corpus],
            ARCHITECTURE,
            RECIPE,
            scratch=tmp_path / f"scratch-{n}",
            out=tmp_path / f"out-{n}",
            cache=tmp_path / "cache",
            threads=1,
        )
        for n in range(2)
    ]
    assert made[0].content_hash == made[1].content_hash
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_phases_are_told_in_their_order(tmp_path: Path) -> None:
    seen: list[str] = []

    def watch(progress: Progress) -> bool:
        if not seen or seen[-1] != progress.phase:
            seen.append(progress.phase)
        return False

    train_seed(
        [make_corpus(tmp_path, "east")],
        ARCHITECTURE,
        RECIPE,
        scratch=tmp_path / "scratch",
        out=tmp_path / "out",
        watch=watch,
        threads=1,
    )
    assert seen == ["reading", "tokenizing", "training", "evaluating", "saving"]


@pytest.mark.parametrize("phase", ["reading", "tokenizing", "training", "evaluating", "saving"])
def test_a_stop_in_any_phase_leaves_no_elm_and_can_be_taken_up(tmp_path: Path, phase: str) -> None:
    corpus = make_corpus(tmp_path, "east")

    def run(watch: object) -> Trained:
        return train_seed(
            [corpus],
            ARCHITECTURE,
            RECIPE,
            scratch=tmp_path / "scratch",
            out=tmp_path / "elms" / "out",
            watch=watch,  # type: ignore[arg-type]
            threads=1,
        )

    with pytest.raises(StoppedTrainingError):
        run(lambda progress: progress.phase == phase)
    assert not list((tmp_path / "elms").glob("*"))
    assert not list((tmp_path / "elms").glob(".*"))
    resumed = run(lambda progress: False)
    assert resumed.content_hash == seed_of(tmp_path / "straight", corpus).content_hash


def test_a_run_can_be_ended_early_with_the_elm_as_it_is(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, "east")

    def run(name: str, last_step: int | None) -> Trained:
        return train_seed(
            [corpus],
            ARCHITECTURE,
            RECIPE,
            scratch=tmp_path / f"scratch-{name}",
            out=tmp_path / name,
            threads=1,
            last_step=last_step,
        )

    early = run("one", 7)
    assert (early.steps, early.own_tokens, early.lineage.own_tokens) == (7, 7 * 64, 7 * 64)
    assert early.domain_tokens == {"east": 7 * 64}
    # What was ended can go on; what has gone on cannot be ended before.
    later = run("one", None)
    assert later.content_hash == run("straight", None).content_hash != early.content_hash
    with pytest.raises(RecipeError, match="last_step=7: lies before step 12, which is done"):
        run("one", 7)
    with pytest.raises(RecipeError, match="last_step=0: must be at least 1"):
        run("none", 0)


def test_a_branch_that_began_needs_its_parents_no_longer(tmp_path: Path) -> None:
    grove = Grove(tmp_path)
    grove.seed("east", "west")
    whole = grove.branch([grove.elm("seed")], "east", name="whole")
    with pytest.raises(StoppedTrainingError):
        grove.branch([grove.elm("seed")], "east", watch=lambda progress: progress.step == 3)
    shutil.rmtree(tmp_path / "seed")
    assert grove.branch([], "east").content_hash == whole.content_hash


def write(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "bad.jsonl").write_bytes(content)
    return folder


def test_bad_corpora_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    good = make_corpus(tmp_path, "east")
    (tmp_path / "empty").mkdir()
    bad = write(tmp_path / "bad", b'{"text": "a"}\n{"text": "\xe9"}\n')
    few = write(tmp_path / "few", b'{"text": "ab"}\n')
    with pytest.raises(EmptyDomainError, match="domain 'none'"):
        seed_of(tmp_path, good, Corpus("none", tmp_path / "empty"))
    with pytest.raises(DocumentError, match=r"bad\.jsonl, line 2: byte 11 \(0xe9\)"):
        seed_of(tmp_path, good, Corpus("bad", bad))
    with pytest.raises(DomainError, match="domain='east': stands more than once"):
        seed_of(tmp_path, good, Corpus("east", few))
    with pytest.raises(DomainError, match="at least one"):
        seed_of(tmp_path)
    recipe = replace(RECIPE, dev_share=0.0, test_share=0.0)
    said = r"domain 'few': its train documents give \d+ tokens, a block needs 17"
    with pytest.raises(TooFewTokensError, match=said):
        seed_of(tmp_path, good, Corpus("few", few), recipe=recipe)
    assert not (tmp_path / "out").exists()


def test_a_block_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    recipe = replace(RECIPE, block_tokens=33, tokens=4 * 33)
    with pytest.raises(RecipeError, match=r"block_tokens=33: is more than .* context of 32"):
        seed_of(tmp_path, make_corpus(tmp_path, "east"), recipe=recipe)


def test_a_branch_s_block_longer_than_the_parents_context_is_refused(
    grove: Grove, seed: Elm
) -> None:
    with pytest.raises(RecipeError, match=r"block_tokens=33: is more than .* context of 32"):
        grove.branch([seed], "east", name="longer", block_tokens=33)
    assert not (grove.folder / "longer").exists()


def test_a_scratch_folder_belongs_to_one_run(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, "east")
    before = seed_of(tmp_path, corpus)
    files = bytes_of(tmp_path / "out")
    with pytest.raises(ChangedRunError, match=r"was begun with learning_rate=0\.003, not 0\.1"):
        seed_of(tmp_path, corpus, recipe=replace(RECIPE, learning_rate=0.1))
    make_corpus(tmp_path, "east", 41)
    with pytest.raises(ChangedRunError, match="was begun with corpora="):
        seed_of(tmp_path, corpus)
    assert bytes_of(tmp_path / "out") == files
    assert json.loads((tmp_path / "out" / "elm.json").read_text())["tokens"] == before.tokens
