"""The choice of a start, and ELMs that are no forest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.corpora import Grove

from evomerge.connectors.local.headers import content_hash
from evomerge.connectors.local.training.errors import ElmsError, UnknownStartError
from evomerge.connectors.local.training.run import Elm
from evomerge.evaluation.corpus import EmptyDomainError
from evomerge.merging.checkpoint.errors import LineageError, VocabularyError
from evomerge.merging.checkpoint.lineage import read_lineage


@pytest.fixture(scope="module")
def forest(grove: Grove, seed: Elm) -> list[Elm]:
    for domain in ("north", "south"):
        grove.branch([seed], domain, tokens=60 * 64)
    return [seed, grove.elm("north", "north"), grove.elm("south", "south")]


def apart(grove: Grove, name: str, shift: float) -> Elm:
    """A copy of the seed whose weights were moved: an ELM whose loss is known to be larger."""
    folder = grove.folder / name
    folder.mkdir()
    source = grove.folder / "north"
    for path in source.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    with torch.random.fork_rng():
        torch.manual_seed(len(name))
        moved = {name: value + shift * torch.randn_like(value) for name, value in tensors.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    return Elm(name, folder, name)


def test_auto_takes_the_start_of_smaller_loss(grove: Grove, forest: list[Elm]) -> None:
    trained = grove.branch(forest, "east", name="auto", tokens=64)
    assert trained.start_losses is not None
    best = min(trained.start_losses, key=trained.start_losses.__getitem__)
    assert "average" in trained.start_losses
    expected = trained.posterior if best == "average" else {best: 1.0}
    assert trained.parents == expected


def test_a_sure_posterior_copies_without_trying(grove: Grove, forest: list[Elm]) -> None:
    broken = apart(grove, "broken", 5.0)
    trained = grove.branch([*forest[:2], broken], "north", name="sure", tokens=64)
    assert trained.posterior is not None
    assert trained.posterior["north"] > 0.999
    assert trained.parents == {"north": 1.0}
    assert trained.start_losses is not None
    assert set(trained.start_losses) == {"north"}


def test_auto_averages_elms_that_lie_around_a_better_one(grove: Grove, forest: list[Elm]) -> None:
    """Two ELMs moved at random from one: their mean is nearer to it than either."""
    pair = [apart(grove, name, 0.15) for name in ("one", "three")]
    trained = grove.branch(pair, "north", name="around", tokens=64)
    assert trained.start_losses is not None
    assert min(trained.start_losses, key=trained.start_losses.__getitem__) == "average"
    assert set(trained.parents) == {"one", "three"}
    assert trained.lineage.optimizer == "reset"


def test_a_forest_without_elms_starts_from_its_seed(grove: Grove, seed: Elm) -> None:
    trained = grove.branch([seed], "east", name="first", tokens=64)
    assert trained.parents == {"seed": 1.0}
    assert trained.posterior is None
    assert trained.lineage.seed_hash == content_hash(seed.folder)
    assert trained.lineage.tokens == read_lineage(seed.folder).tokens + 64
    assert trained.lineage.domain == "east"


def test_the_seed_is_no_rival_of_its_elms(grove: Grove, forest: list[Elm]) -> None:
    trained = grove.branch(forest, "east", name="rivals", start="nearest", tokens=64)
    assert trained.posterior is not None
    assert set(trained.posterior) == {"north", "south"}


def test_an_average_has_seen_what_its_parents_have_in_its_shares(
    grove: Grove, forest: list[Elm]
) -> None:
    trained = grove.branch(forest, "east", name="mixed", start="average", tokens=64)
    seen = {elm.name: read_lineage(elm.folder).tokens for elm in forest[1:]}
    mean = sum(weight * seen[name] for name, weight in trained.parents.items())
    assert trained.tokens == round(mean) + 64
    assert not (grove.folder / "scratch" / "mixed" / "average").exists()


@pytest.mark.parametrize(
    ("start", "known"), [("nobody", "'seed', 'north', 'south'"), ("", "'seed', 'north', 'south'")]
)
def test_an_unknown_start_names_those_there_are(
    grove: Grove, forest: list[Elm], start: str, known: str
) -> None:
    with pytest.raises(UnknownStartError, match=f"start='{start}': the forest's ELMs are {known}"):
        grove.branch(forest, "east", name="unknown", start=start)
    assert not (grove.folder / "unknown").exists()


def test_a_forest_without_its_seed_cannot_start_from_it(grove: Grove, forest: list[Elm]) -> None:
    with pytest.raises(UnknownStartError, match="start='seed': the forest's ELMs are 'north'"):
        grove.branch(forest[1:2], "east", name="seedless", start="seed")


def test_what_is_no_forest_is_refused(grove: Grove, forest: list[Elm], seed: Elm) -> None:
    with pytest.raises(ElmsError, match="neither a seed nor an ELM"):
        grove.branch([], "east", name="none")
    with pytest.raises(ElmsError, match="'north': is the name of two ELMs"):
        grove.branch([*forest, forest[1]], "east", name="twice")
    with pytest.raises(ElmsError, match="only the seed has none"):
        grove.branch([seed, Elm("other", seed.folder, None)], "east", name="seeds")


def test_elms_of_another_seed_or_vocabulary_are_refused(
    grove: Grove, forest: list[Elm], tmp_path: Path
) -> None:
    grove.seed("north", "south", name="stranger", seed=9)
    stranger = grove.elm("stranger", "strange")
    for start in ("average", "nearest", "auto"):
        with pytest.raises(LineageError, match="stranger"):
            grove.branch([*forest, stranger], "east", name=f"mixed-{start}", start=start)
    grove.seed("east", "west", name="foreign")
    foreign = grove.elm("foreign", "strange")
    with pytest.raises(VocabularyError, match="foreign"):
        grove.branch([*forest, foreign], "east", name="mixed-words", start="nearest")
    assert not list(grove.folder.glob("mixed-*"))


def test_a_domain_without_development_documents_cannot_be_measured(
    grove: Grove, forest: list[Elm]
) -> None:
    with pytest.raises(EmptyDomainError, match="to choose start='auto' by; raise dev_share"):
        grove.branch(forest, "east", name="unmeasured", dev_share=0.0)
    named = grove.branch(forest, "east", name="unmeasured-named", start="north", dev_share=0.0)
    assert named.dev_losses == {}
    assert named.dev_loss is named.perplexity is None
