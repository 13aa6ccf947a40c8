"""One CMA-ES run over a vector."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.optimizers import FloatArray, InvalidParameterError
from evomerge.optimizers.cma_stage import CmaParameters, CmaStage, _ranks

pytestmark = pytest.mark.filterwarnings("error")

VectorLoss = Callable[[FloatArray], float]


def stage(dimension: int, *, start: float = 0.0, seed: int = 0, **changes: object) -> CmaStage:
    values: dict[str, object] = {
        "name": "test",
        "evaluations": 600,
        "sigma": 0.3,
        "low": -1.5,
        "high": 1.5,
        "l1": 0.0,
    }
    parameters = CmaParameters(**(values | changes))  # type: ignore[arg-type]
    return CmaStage(parameters, np.full(dimension, start), np.random.RandomState(seed))


def minimise(search: CmaStage, loss: VectorLoss) -> tuple[FloatArray, float]:
    """The vector of the lowest objective, and that objective."""
    best = (np.empty(0), math.inf)
    while not search.done:
        population = search.ask()
        objectives = search.tell(population, np.array([loss(x) for x in population]))
        lowest = int(objectives.argmin())
        if objectives[lowest] < best[1]:
            best = (population[lowest], float(objectives[lowest]))
    return best


@pytest.mark.parametrize("dimension", [1, 2, 10])
def test_finds_the_minimum(dimension: int) -> None:
    target = np.linspace(-0.9, 0.7, dimension)
    found, _ = minimise(stage(dimension), lambda x: float(((x - target) ** 2).sum()))
    assert np.allclose(found, target, atol=0.01)


def test_finds_a_minimum_on_the_bounds() -> None:
    found, _ = minimise(stage(4), lambda x: float(x @ np.array([1.0, -1.0, 2.0, -2.0])))
    assert np.allclose(found, [-1.5, 1.5, -1.5, 1.5], atol=1e-3)


def test_starts_on_a_bound() -> None:
    search = stage(5, start=1.5)
    population = search.ask()
    assert (population <= 1.5).all()
    assert (population < 1.5).any()


def test_the_penalty_is_on_the_mean_of_absolute_values() -> None:
    search = stage(3, l1=0.5)
    population = search.ask()
    losses = np.arange(len(population), dtype=np.float64)
    expected = losses + 0.5 * np.abs(population).mean(axis=1)
    assert np.array_equal(search.tell(population, losses), expected)


def test_the_penalty_of_one_dimension_leaves_the_padding_out() -> None:
    search = stage(1, l1=1.0)
    population = search.ask()
    assert population.shape == (4, 1)
    assert np.array_equal(search.tell(population, np.zeros(4)), np.abs(population[:, 0]))


def test_the_penalty_draws_useless_coordinates_to_zero() -> None:
    found, _ = minimise(stage(6, l1=0.1, start=0.5), lambda x: float((x[0] - 1.0) ** 2))
    assert abs(found[0] - 1.0) < 0.1
    assert np.abs(found[1:]).max() < 0.02


def test_only_whole_generations() -> None:
    search = stage(10, evaluations=59, population=20)
    sizes = []
    while not search.done:
        population = search.ask()
        sizes.append(len(population))
        search.tell(population, np.arange(20.0))
    assert sizes == [20, 20]


def test_a_budget_below_one_population_is_refused() -> None:
    with pytest.raises(InvalidParameterError, match=r"test\.evaluations=9.*population of 10"):
        stage(10, evaluations=9)


def test_patience_counts_generations_without_a_better_objective() -> None:
    search = stage(5, evaluations=10_000, patience=3)
    told = [[5.0] * 8, [4.0] * 8, [4.0] * 8, [4.5] * 8, [math.nan] * 8]
    for losses in told:
        assert not search.done
        search.tell(search.ask(), np.array(losses))
    assert search.done
    assert search.generation == 5


def test_patience_runs_out_on_nothing_but_broken_populations() -> None:
    search = stage(5, evaluations=10_000, patience=3)
    while not search.done:
        search.tell(search.ask(), np.full(8, math.nan))
    assert search.generation == 3


def test_ends_when_nothing_can_move_any_more() -> None:
    search = stage(2, evaluations=100_000)
    minimise(search, lambda x: float((x**2).sum()))
    assert search.generation * 6 < 10_000


def test_a_broken_population_is_drawn_again_from_the_same_distribution() -> None:
    search = stage(5)
    first = search.ask()
    search.tell(first, np.full(8, math.nan))
    second = search.ask()
    assert not np.array_equal(first, second)
    # Three standard deviations and more around the same start.
    assert np.abs(second).max() < 5 * 0.3


@pytest.mark.parametrize(("dimension", "population"), [(5, 2), (5, 4), (300, 2), (300, 21)])
def test_broken_populations_now_and_then_at_every_size(dimension: int, population: int) -> None:
    """pycma's chosen points (mirrors, step-size pairs) survive a population drawn again."""
    search = stage(dimension, population=population, evaluations=30 * population)
    best: list[float] = []
    while not search.done:
        points = search.ask()
        losses = (points**2).mean(axis=1) + 1.0
        if search.generation % 3 == 1:
            losses[:] = math.nan
        else:
            best.append(float(losses.min()))
        search.tell(points, losses)
    assert search.generation == 30
    assert all(math.isfinite(value) for value in best)


def test_a_broken_candidate_is_shunned() -> None:
    """Told as the worst, not as the median that pycma would make of it."""
    target = np.full(5, 0.4)

    def loss(x: FloatArray) -> float:
        return math.nan if x[0] < 0 else float(((x - target) ** 2).sum())

    found, _ = minimise(stage(5), loss)
    assert np.allclose(found, target, atol=0.01)


def test_a_first_step_wider_than_the_bounds_is_cut_silently() -> None:
    search = stage(5, sigma=10.0)
    assert np.abs(search.ask()).max() <= 1.5


def test_many_dimensions_use_a_diagonal_covariance_and_still_improve() -> None:
    target = np.random.RandomState(1).uniform(-1, 1, 300)
    search = stage(300, evaluations=2_100)
    _, found = minimise(search, lambda x: float(((x - target) ** 2).mean()))
    assert found < 0.25 * float((target**2).mean())


def test_the_number_of_threads_asked_for_changes_no_bit() -> None:
    program = (
        "import hashlib, numpy as np\n"
        "from evomerge.optimizers import Cma, ScalingParameters\n"
        "o = Cma(120, ScalingParameters(evaluations=540, sigma=0.3), seed=1)\n"
        "h = hashlib.sha256()\n"
        "while not o.done:\n"
        "    p = o.ask()\n"
        "    h.update(b''.join(c.beta.tobytes() for c in p))\n"
        "    o.tell(p, np.array([((c.beta - 0.5) ** 2).sum() for c in p]))\n"
        "print(h.hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(digests) == 1


@settings(deadline=None)
@given(st.lists(st.floats(), min_size=2, max_size=40))
def test_ranks_keep_the_order_and_put_broken_losses_last(losses: list[float]) -> None:
    ranks = _ranks(np.array(losses))
    assert sorted(ranks) == list(range(len(losses)))
    for i, one in enumerate(losses):
        for j, other in enumerate(losses):
            if math.isfinite(one) and not math.isfinite(other):
                assert ranks[i] < ranks[j]
            if math.isfinite(one) and math.isfinite(other) and (one, i) < (other, j):
                assert ranks[i] < ranks[j]
