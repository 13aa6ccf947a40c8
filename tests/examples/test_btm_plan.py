"""The plan spends equal tokens on what is compared, and names each model by what it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from benchmarks.btm.plan import FEWER, SHARE, SHARES, Model, Settings, key, plan

SETTINGS = Settings(tokens=600_000)


def spent(model: Model | None) -> int:
    """Tokens since the random start."""
    return 0 if model is None else model.tokens + spent(model.parent)


@pytest.mark.parametrize("tokens", [60_000, 600_000, 1_000_000])
def test_the_forest_its_random_split_and_the_dense_model_get_equal_tokens(tokens: int) -> None:
    planned = plan(replace(SETTINGS, tokens=tokens), seed=1)
    domain, random = planned.forests[SHARE], planned.random
    own = [sum(elm.tokens for elm in forest.elms) for forest in (domain, random)]
    whole = planned.dense[len(SETTINGS.domains)]
    assert own == [whole.tokens] * 2
    assert {elm.parent for elm in (*domain.elms, *random.elms, whole)} == {planned.seed}


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_all_tokens_is_the_seeds(share: float) -> None:
    forest = plan(SETTINGS, seed=1).forests[share]
    total = spent(forest.seed) + sum(elm.tokens for elm in forest.elms)
    assert total == pytest.approx(SETTINGS.tokens, rel=0.02)
    assert spent(forest.seed) == pytest.approx(share * SETTINGS.tokens, rel=0.01)


def test_fewer_domains_get_what_their_elms_get() -> None:
    planned = plan(SETTINGS, seed=1)
    for number in FEWER:
        elms = planned.forests[SHARE].elms[:number]
        assert planned.dense[number].domains == SETTINGS.domains[:number]
        assert planned.dense[number].tokens == sum(elm.tokens for elm in elms)


def test_without_a_seed_each_elm_has_random_weights_of_its_own() -> None:
    elms = plan(SETTINGS, seed=1).forests[0.0].elms
    assert len({elm.seed for elm in elms}) == len(elms)
    assert {elm.parent for elm in elms} == {None}


def test_parents_come_before_their_branches_and_no_model_twice() -> None:
    models = [model for seed in SETTINGS.seeds for model in plan(SETTINGS, seed).models()]
    assert len(set(models)) == len(models)
    for place, model in enumerate(models):
        assert model.parent is None or model.parent in models[:place]
    assert len({key(model, SETTINGS, "texts") for model in models}) == len(models)


def test_a_key_follows_what_a_model_is_and_not_what_is_scored() -> None:
    model = plan(SETTINGS, seed=1).random.elms[0]
    same = key(model, SETTINGS, "texts")
    assert key(replace(model, name="other"), SETTINGS, "texts") == same
    assert key(model, replace(SETTINGS, test_pieces=3, seeds=(9,)), "texts") == same
    assert key(model, SETTINGS, "others") != same
    assert key(model, replace(SETTINGS, learning_rate=1e-4), "texts") != same
    assert model.parent is not None
    older = replace(model, parent=replace(model.parent, tokens=model.parent.tokens + 2048))
    assert key(older, SETTINGS, "texts") != same
