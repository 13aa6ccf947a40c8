"""Feature 10: an ELM is removed; the prior sums to 1, and the forest is one that never had it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.app.api.client import Json
from tests.support.elm_folders import contents
from tests.support.forest_service import NAMES, Wood, wood

from evomerge.app.db.repositories import forests as repository
from evomerge.app.ensembles import Ensemble
from evomerge.connectors.local.forest.elms import Elm, Elms
from evomerge.connectors.local.forest.ensemble import ForestScorer, Mixing
from evomerge.merging.forest.prior import Prior

PRIOR = {"ada": 0.2, "bob": 0.5, "cyd": 0.3}
TEXTS = ["Berlin is in Germany", "one two three", "2+2=4"]


@pytest.fixture
async def forests(tmp_path: Path, sqlite_template: Path) -> AsyncIterator[Wood]:
    async with wood(tmp_path, sqlite_template) as found:
        yield found


async def shown(forests: Wood, name: str) -> Json:
    found: Json = (await forests.api.get(f"/v1/forests/{name}")).json()
    return found


async def scores(forests: Wood, forest_id: str) -> list[np.ndarray]:
    """log p of each token of the texts, by what the database holds of a forest."""
    async with forests.database.write() as session:
        row = await repository.lock(session, forest_id)
        rows = await repository.elms(session, forest_id)
    assert row is not None
    elms = Elms(
        [Elm(elm.name, Path(elm.path), elm.content_hash) for elm in rows], device="cpu", threads=1
    )
    settings = Ensemble.of(row.ensemble)
    prior = Prior(np.array(settings.weights(elms.names)), settings.mode)
    mixing = Mixing(prior, settings.history, settings.top_k, settings.top_k_kind)
    scorer = ForestScorer(elms, batch_tokens=256)
    return list(scorer.score(scorer.rows(TEXTS), mixing).log_probs)


@pytest.mark.parametrize("gone", NAMES)
async def test_the_prior_sums_to_one_in_the_old_ratios(forests: Wood, gone: str) -> None:
    await forests.forest("wood", prior=PRIOR)
    assert (await forests.api.http.delete(f"/v1/forests/wood/elms/{gone}")).status_code == 200
    prior = (await shown(forests, "wood"))["ensemble"]["prior"]
    assert math.fsum(prior.values()) == pytest.approx(1, abs=1e-15)
    rest = 1 - PRIOR[gone]
    assert prior == pytest.approx(
        {name: weight / rest for name, weight in PRIOR.items() if name != gone}
    )


@pytest.mark.parametrize(
    ("before", "never"),
    [
        ({}, {}),
        ({"prior": PRIOR}, {"prior": {"ada": 0.4, "cyd": 0.6}}),
        ({"prior": PRIOR, "top_k": 3}, {"prior": {"ada": 0.4, "cyd": 0.6}, "top_k": 2}),
        ({"prior": {"bob": 1.0}, "top_k": 1}, {"top_k": 1}),
        (
            {"mode": "uniform", "prior": PRIOR, "top_k": 2, "top_k_kind": "static"},
            {
                "mode": "uniform",
                "prior": {"ada": 0.4, "cyd": 0.6},
                "top_k": 2,
                "top_k_kind": "static",
            },
        ),
        ({"mode": "updating", "history": "previous"}, {"mode": "updating", "history": "previous"}),
    ],
)
async def test_it_is_a_forest_that_never_had_it(
    forests: Wood, before: dict[str, Any], never: dict[str, Any]
) -> None:
    had = await forests.forest("had", **before)
    other = await forests.forest("never", ("ada", "cyd"), **never)
    had_it = await scores(forests, had["id"])
    files = contents(forests.root)
    assert (await forests.api.http.delete("/v1/forests/had/elms/bob")).status_code == 200
    assert contents(forests.root) == files
    left, fresh = await shown(forests, "had"), await shown(forests, "never")
    assert left["ensemble"].pop("prior") == pytest.approx(fresh["ensemble"].pop("prior"))
    assert left["ensemble"] == fresh["ensemble"]
    assert [elm["name"] for elm in left["elms"]] == [elm["name"] for elm in fresh["elms"]]
    after, without = await scores(forests, had["id"]), await scores(forests, other["id"])
    for one, same, once in zip(after, without, had_it, strict=True):
        np.testing.assert_allclose(one, same, rtol=0, atol=1e-12)
        assert not np.allclose(one, once, atol=1e-3)  # bob was heard


async def test_what_comes_and_goes_leaves_no_trace(forests: Wood) -> None:
    forest = await forests.forest("wood", ("ada", "bob"), prior={"ada": 0.9, "bob": 0.1})
    before = await scores(forests, forest["id"])
    body = {"path": str(forests.root / "cyd")}
    assert (await forests.api.post("/v1/forests/wood/elms", body)).status_code == 201
    assert (await forests.api.http.delete("/v1/forests/wood/elms/cyd")).status_code == 200
    for one, same in zip(await scores(forests, forest["id"]), before, strict=True):
        np.testing.assert_allclose(one, same, rtol=0, atol=1e-12)
