"""Feature 23: a compute-matched dense baseline and a random-split control: equal tokens logged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.corpora import ARCHITECTURE, RECIPE, Grove

from evomerge.connectors.local.training.controls import (
    forest_tokens,
    random_split,
    train_dense,
    train_mixture,
)
from evomerge.connectors.local.training.errors import ElmsError, RecipeError
from evomerge.connectors.local.training.run import Elm
from evomerge.evaluation.corpus import EmptyDomainError, documents
from evomerge.merging.checkpoint.lineage import read_lineage


def test_dense_baseline_has_the_forests_tokens(
    grove: Grove, forest: list[Elm], tmp_path: Path
) -> None:
    own = {elm.name: read_lineage(elm.folder).own_tokens for elm in forest}
    assert own == {"seed": 12 * 64, "north": 40 * 64, "south": 40 * 64}
    corpora = [grove.corpus("north"), grove.corpus("south")]
    dense = train_dense(
        corpora,
        ARCHITECTURE,
        RECIPE,
        forest,
        scratch=tmp_path / "scratch",
        out=tmp_path / "dense",
        threads=1,
    )
    assert dense.tokens == sum(own.values()) == forest_tokens(forest)
    assert read_lineage(tmp_path / "dense").own_tokens == dense.tokens
    assert dense.domain_tokens == {"north": dense.tokens // 2, "south": dense.tokens // 2}


def test_random_forest_has_the_domain_forests_tokens_in_all_and_of_each_domain(
    grove: Grove, forest: list[Elm], tmp_path: Path
) -> None:
    corpora = [grove.corpus("north"), grove.corpus("south")]
    parts = random_split(corpora, 2, seed=5, folder=tmp_path / "split")
    recipe = replace(RECIPE, tokens=40 * 64)
    random_elms = []
    for place, part in enumerate(parts):
        name = f"random-{place}"
        trained = train_mixture(
            forest[0],
            part,
            recipe,
            domain=name,
            optimizer="reset",
            scratch=tmp_path / "scratch" / name,
            out=tmp_path / name,
            threads=1,
        )
        assert trained.domain_tokens == {"north": 20 * 64, "south": 20 * 64}
        assert trained.lineage.seed_hash == read_lineage(forest[1].folder).seed_hash
        random_elms.append(Elm(name, tmp_path / name, name))
    assert forest_tokens([forest[0], *random_elms]) == forest_tokens(forest)


def test_a_random_split_deals_each_document_once(grove: Grove, tmp_path: Path) -> None:
    corpora = [grove.corpus("north"), grove.corpus("south")]
    parts = random_split(corpora, 3, seed=5, folder=tmp_path / "split")
    for place, corpus in enumerate(corpora):
        whole = sorted(document.text for document in documents(corpus))
        dealt = [[each.text for each in documents(part[place])] for part in parts]
        assert sorted(text for texts in dealt for text in texts) == whole
        assert all(dealt)
        assert {part[place].domain for part in parts} == {corpus.domain}
    again = random_split(corpora, 3, seed=5, folder=tmp_path / "again")
    other = random_split(corpora, 3, seed=6, folder=tmp_path / "other")
    texts = [[part[0].path.read_text() for part in split] for split in (parts, again, other)]
    assert texts[0] == texts[1] != texts[2]


def test_a_part_without_documents_is_refused(grove: Grove, tmp_path: Path) -> None:
    with pytest.raises(EmptyDomainError, match=r"'few'.* gives no document to part"):
        random_split([grove.corpus("few", 3)], 40, seed=5, folder=tmp_path / "split")
    assert not (tmp_path / "split").exists()


def test_tokens_that_cannot_be_equal_are_refused(
    grove: Grove, forest: list[Elm], tmp_path: Path
) -> None:
    corpora = [grove.corpus("north")]
    places = {"scratch": tmp_path / "scratch", "out": tmp_path / "dense"}
    with pytest.raises(RecipeError, match="batch_tokens=80"):
        train_dense(corpora, ARCHITECTURE, replace(RECIPE, batch_blocks=5), forest, **places)
    with pytest.raises(ElmsError, match="its one seed"):
        train_dense(corpora, ARCHITECTURE, RECIPE, forest[1:], **places)
    assert not list(tmp_path.iterdir())
