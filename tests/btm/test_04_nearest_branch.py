"""Feature 4: a nearest branch copies the ELM of largest posterior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.support.corpora import RECIPE, Grove, sentences

from evomerge.connectors.local.headers import content_hash
from evomerge.connectors.local.training.run import Corpus, Elm, Trained, branch_train


@pytest.mark.parametrize("near", ["north", "south"])
def test_argmax_of_the_posterior_is_copied(grove: Grove, forest: list[Elm], near: str) -> None:
    """A new domain that speaks one ELM's language, with other documents."""
    file = grove.folder / f"{near}-again.txt"
    texts = sentences(near, 30)
    file.write_text("\n\n".join(f"{text} {text[::-1]}" for text in texts), encoding="utf-8")
    trained: Trained = branch_train(
        forest,
        Corpus(f"{near}-again", file),
        replace(RECIPE, tokens=64),
        start="nearest",
        scratch=grove.folder / "scratch" / f"{near}-again",
        out=grove.folder / f"{near}-again",
        threads=1,
    )
    assert trained.posterior is not None
    assert set(trained.posterior) == {"north", "south"}
    assert np.isclose(sum(trained.posterior.values()), 1)
    assert max(trained.posterior, key=trained.posterior.__getitem__) == near
    assert trained.parents == {near: 1.0}
    [parent] = trained.lineage.parents
    assert parent.content_hash == content_hash(grove.folder / near)
