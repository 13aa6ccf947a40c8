"""One tiny forest for the tests that only read it: a seed on two domains, an ELM on each."""

from __future__ import annotations

import pytest
from tests.support.corpora import Grove

from evomerge.connectors.local.training.run import Elm


@pytest.fixture(scope="session")
def grove(tmp_path_factory: pytest.TempPathFactory) -> Grove:
    return Grove(tmp_path_factory.mktemp("grove"))


@pytest.fixture(scope="session")
def seed(grove: Grove) -> Elm:
    grove.seed("north", "south", keep_optimizer=True)
    return grove.elm("seed")


@pytest.fixture(scope="session")
def forest(grove: Grove, seed: Elm) -> list[Elm]:
    """The seed and two ELMs, which kept their optimizers."""
    for domain in ("north", "south"):
        grove.branch([seed], domain, keep_optimizer=True, optimizer="reset", tokens=40 * 64)
    return [seed, grove.elm("north", "north"), grove.elm("south", "south")]
