"""Feature 6: training an ELM leaves all others byte-identical."""

from __future__ import annotations

import pytest
from tests.support.corpora import Grove, bytes_of

from evomerge.connectors.local.training.run import Elm


@pytest.mark.parametrize("start", ["auto", "nearest", "average", "seed", "north"])
def test_no_other_elm_changes(grove: Grove, forest: list[Elm], start: str) -> None:
    before = {elm.name: bytes_of(elm.folder) for elm in forest}
    grove.branch(forest, "island", name=f"island-{start}", start=start)
    assert {elm.name: bytes_of(elm.folder) for elm in forest} == before
