"""One tiny seed, and the tokens of a corpus, for the tests of training."""

from __future__ import annotations

import pytest
from tests.support.corpora import Grove

from evomerge.connectors.local.training.run import Elm


@pytest.fixture(scope="session")
def grove(tmp_path_factory: pytest.TempPathFactory) -> Grove:
    return Grove(tmp_path_factory.mktemp("grove"))


@pytest.fixture(scope="session")
def seed(grove: Grove) -> Elm:
    grove.seed("north", "south")
    return grove.elm("seed")
