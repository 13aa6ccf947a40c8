"""LoRAHub's search: what nevergrad's NGOpt is held to."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
from tests.support.searches import bits, quadratic, run, signed_target

from evomerge.optimizers import InvalidParameterError, LoraHub, Preselection, replay
from evomerge.optimizers import lorahub as module

pytest.importorskip("nevergrad", reason="needs the extra baselines")

UNFINISHED = """
from evomerge.optimizers import LoraHub
import numpy as np
search = LoraHub(5, seed=3)
for _ in range(3):
    search.tell(search.ask(), np.array([1.0]))
print("asked")
"""


def test_it_begins_at_the_base_and_goes_one_by_one() -> None:
    optimizer = LoraHub(5, seed=7, groups=2, probe=True)
    told = run(optimizer, quadratic(signed_target(5)))
    assert [len(population) for population in told.populations] == [5] + [1] * 40
    assert not told.populations[1][0].beta.any()
    assert optimizer.baseline_evaluations == 5
    assert optimizer.planned_evaluations == 45
    betas = np.stack([population[0].beta for population in told.populations[1:]])
    assert betas.shape == (40, 2, 5)
    assert np.abs(betas).max() <= 1.5


@pytest.mark.parametrize(("experts", "evaluations"), [(1, 40), (6, 60), (30, 150)])
def test_it_comes_nearer(experts: int, evaluations: int) -> None:
    target = signed_target(experts)
    optimizer = LoraHub(experts, seed=1, evaluations=evaluations, l1=0.0)
    told = run(optimizer, quadratic(target))
    assert optimizer.best is not None
    assert optimizer.best.loss < 0.75 * told.losses[0][0]


def test_the_penalty_is_on_the_mean() -> None:
    optimizer = LoraHub(4, seed=1, l1=0.3)
    run(optimizer, lambda candidate: 1.0 - float(candidate.beta.sum()))
    (best,) = optimizer.stage_bests.values()
    penalty = 0.3 * np.abs(best.candidate.beta).mean()
    assert best.objective == pytest.approx(best.loss + penalty)


def test_goes_on_bit_for_bit_from_every_generation() -> None:
    loss = quadratic(signed_target(5))
    whole = run(LoraHub(5, seed=2, evaluations=30, probe=True), loss)
    for cut in (0, 1, 2, 17, 30):
        rebuilt = LoraHub(5, seed=2, evaluations=30, probe=True)
        assert replay(rebuilt, whole.rows(cut)) is None
        assert bits(run(rebuilt, loss).populations) == bits(whole.populations[cut:])


def test_it_asks_what_lorahub_asks() -> None:
    """Beside its released search: bounds and start given at once, the penalty in the loss."""
    nevergrad = pytest.importorskip("nevergrad")
    start = nevergrad.p.Array(init=[0] * 6, upper=[1.5] * 6, lower=[-1.5] * 6)
    start.random_state = np.random.RandomState(3)
    theirs = nevergrad.optimizers.NGOpt(parametrization=start, budget=40)
    loss = quadratic(signed_target(6))
    told = run(LoraHub(6, seed=3), loss)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for (candidate,) in told.populations:
            asked = theirs.ask()
            assert np.array_equal(asked.value, candidate.beta[0])
            theirs.tell(asked, loss(candidate) + 0.05 * float(np.abs(asked.value).mean()))


def test_two_interleaved_give_what_each_gives_alone() -> None:
    loss = quadratic(signed_target(5))
    alone = run(LoraHub(5, seed=4), loss)
    one, other = LoraHub(5, seed=4), LoraHub(5, seed=4)
    asked = []
    for _ in range(40):
        np.random.seed(1)
        asked.append(one.ask())
        second = other.ask()
        one.tell(asked[-1], np.array([loss(asked[-1][0])]))
        other.tell(second, np.array([loss(second[0])]))
    assert bits(asked) == bits(alone.populations)


def test_leaves_the_global_generator_alone() -> None:
    np.random.seed(5)
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    run(LoraHub(5, seed=4), quadratic(signed_target(5)))
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_candidate_that_broke_is_no_best(value: float) -> None:
    loss = quadratic(signed_target(5))
    optimizer = LoraHub(5, seed=4)
    told = run(optimizer, lambda candidate: value if candidate.beta[0, 0] > 0 else loss(candidate))
    finite = np.array([losses[0] for losses in told.losses])
    assert optimizer.best is not None
    assert optimizer.best.loss == finite[np.isfinite(finite)].min()
    broken = LoraHub(5, seed=4)
    run(broken, lambda candidate: value)
    assert broken.best is None


def test_only_the_best_few_take_part() -> None:
    optimizer = LoraHub(4, seed=1, probe=True, selection=Preselection(4, 2))
    optimizer.tell(optimizer.ask(), np.array([3.0, 1.0, 4.0, 2.0]))
    told = run(optimizer, quadratic(signed_target(4)))
    betas = np.stack([population[0].beta[0] for population in told.populations])
    assert betas.any(axis=0).tolist() == [False, True, False, True]


def test_an_unfinished_search_keeps_no_process_alive() -> None:
    """NGOpt may wait on a thread of its own for a loss that never comes."""
    ended = subprocess.run(
        [sys.executable, "-c", UNFINISHED], capture_output=True, text=True, timeout=120, check=True
    )
    assert ended.stdout == "asked\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seed": -1}, "seed=-1"),
        ({"evaluations": 0}, "evaluations=0"),
        ({"low": 0.5}, r"low=0\.5"),
        ({"low": 2.0, "high": 1.0}, r"low=2\.0"),
        ({"l1": -0.1}, r"l1=-0\.1"),
    ],
)
def test_what_is_no_setting_is_named(arguments: dict[str, float], said: str) -> None:
    with pytest.raises(InvalidParameterError, match=said):
        LoraHub(3, **{"seed": 1, **arguments})  # type: ignore[arg-type]


def test_without_nevergrad_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(InvalidParameterError, match=r"name='lorahub': needs nevergrad.*baselines"):
        LoraHub(3, seed=1)
