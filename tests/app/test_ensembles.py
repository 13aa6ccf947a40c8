from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.app.ensembles import Ensemble

NAMES = [f"elm{n}" for n in range(6)]


@st.composite
def priors(draw: st.DrawFn) -> dict[str, float]:
    """A prior over two ELMs at least; some may weigh nothing."""
    parts = draw(st.lists(st.integers(0, 100), min_size=2, max_size=6).filter(any))
    return {name: part / sum(parts) for name, part in zip(NAMES, parts, strict=False)}


def test_at_first_all_weigh_the_same_and_all_speak() -> None:
    ensemble = Ensemble()
    assert ensemble.weights(NAMES[:4]) == [0.25] * 4
    assert Ensemble.of(ensemble.stored()) == ensemble


@given(priors())
def test_what_is_stored_is_what_was_set(prior: dict[str, float]) -> None:
    ensemble = Ensemble("updating", prior, "previous", 2, "static")
    assert Ensemble.of(ensemble.stored()) == ensemble
    assert ensemble.weights(list(prior)) == list(prior.values())


def test_a_uniform_ensemble_forgets_no_prior_but_does_not_use_it() -> None:
    ensemble = Ensemble("uniform", {"elm0": 1.0})
    assert ensemble.weights(NAMES[:2]) == [0.5, 0.5]
    assert ensemble.prior == {"elm0": 1.0}


def test_elms_that_the_prior_leaves_out_weigh_nothing() -> None:
    assert Ensemble(prior={"elm1": 1.0}).weights(NAMES[:3]) == [0.0, 1.0, 0.0]


@given(priors())
def test_an_elm_that_comes_has_one_part_and_the_rest_keeps_its_ratios(
    prior: dict[str, float],
) -> None:
    more = Ensemble(prior=prior).with_elm("new", len(prior) + 1).prior
    assert more is not None
    assert math.fsum(more.values()) == pytest.approx(1)
    assert more["new"] == pytest.approx(1 / len(more))
    for name, weight in prior.items():
        assert more[name] == pytest.approx(weight * len(prior) / len(more))


@given(priors())
def test_coming_and_going_changes_nothing(prior: dict[str, float]) -> None:
    before = Ensemble(prior=prior, top_k=2)
    after = before.with_elm("new", len(prior) + 1).without_elm("new", len(prior))
    assert after.prior == pytest.approx(prior)
    assert after.top_k == 2


@given(priors(), st.data())
def test_what_is_left_sums_to_one(prior: dict[str, float], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(list(prior)))
    left = Ensemble(prior=prior, top_k=len(prior)).without_elm(gone, len(prior) - 1)
    assert left.top_k == len(prior) - 1
    if left.prior is None:
        assert prior[gone] == 1
    else:
        assert gone not in left.prior
        assert math.fsum(left.prior.values()) == pytest.approx(1)
        ratio = 1 - prior[gone]
        for name, weight in left.prior.items():
            assert weight == pytest.approx(prior[name] / ratio)


def test_without_a_prior_none_comes_to_be() -> None:
    assert Ensemble().with_elm("new", 3) == Ensemble()
    assert Ensemble().without_elm("old", 3) == Ensemble()
