"""What every fusion of answers must do, whatever the answers are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fusions import MAKERS, POOL, ROWS, Maker, population

from evomerge.merging.output import sparse
from evomerge.merging.output.errors import FusionMetricError, PopulationError
from evomerge.merging.output.fusion import CUT

SEEDS = st.integers(0, 1 << 32)
every_kind = pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
checks = settings(deadline=None, max_examples=15)


@every_kind
@checks
@given(seed=SEEDS)
def test_shapes_weights_and_finite_losses(maker: Maker, seed: int) -> None:
    fusion = maker.make(seed)
    alpha, beta = population(seed, 4)
    losses = fusion.losses(alpha, beta, maker.metric)
    assert (fusion.experts, fusion.examples) == (POOL, ROWS)
    assert losses.shape == (4, ROWS)
    assert losses.dtype == np.float64
    assert np.isfinite(losses).all()
    assert (losses >= -1e-12).all()
    assert fusion.weights().shape == (ROWS,)
    assert (fusion.weights() > 0).all()
    kept = fusion.kept(alpha, beta)
    assert kept.shape == (4, POOL)
    assert kept.dtype == np.bool_


@every_kind
@checks
@given(seed=SEEDS)
def test_a_population_is_scored_as_each_candidate_alone(maker: Maker, seed: int) -> None:
    fusion = maker.make(seed)
    alpha, beta = population(seed, 6)
    together = fusion.losses(alpha, beta, maker.metric)
    for p in range(6):
        alone = fusion.losses(alpha[p : p + 1], beta[p : p + 1], maker.metric)
        np.testing.assert_allclose(together[p], alone[0], atol=1e-12)


@every_kind
@checks
@given(seed=SEEDS)
def test_examples_are_scored_as_each_alone(maker: Maker, seed: int) -> None:
    fusion = maker.make(seed)
    alpha, beta = population(seed, 3)
    thresholds = fusion.fit(alpha, beta, maker.metric)
    together = fusion.losses(alpha, beta, maker.metric, thresholds)
    for x in range(ROWS):
        alone = maker.make(seed, rows=[x]).losses(alpha, beta, maker.metric, thresholds)
        np.testing.assert_allclose(together[:, x], alone[:, 0], atol=1e-12)


@every_kind
@checks
@given(seed=SEEDS, order=st.permutations(range(POOL)))
def test_the_order_of_the_experts_does_not_count(maker: Maker, seed: int, order: list[int]) -> None:
    alpha, beta = population(seed, 4)
    np.testing.assert_allclose(
        maker.make(seed).losses(alpha, beta, maker.metric),
        maker.make(seed, order).losses(alpha[:, order], beta[:, order], maker.metric),
        atol=1e-9,
    )


@every_kind
@checks
@given(seed=SEEDS, dropped=st.lists(st.integers(0, POOL - 1), unique=True, max_size=POOL - 1))
@pytest.mark.parametrize("how", ["no weight", "alpha below the cut"])
def test_dropping_an_expert_is_removing_it(
    maker: Maker, seed: int, dropped: list[int], how: str
) -> None:
    alpha, beta = population(seed, 4)
    if how == "no weight":
        beta[:, dropped] = 0.0
    else:
        alpha[:, dropped] = np.nextafter(CUT, 0)
    rest = [i for i in range(POOL) if i not in dropped]
    whole, smaller = maker.make(seed), maker.make(seed, rest)
    assert not whole.kept(alpha, beta)[:, dropped].any()
    np.testing.assert_array_equal(
        whole.kept(alpha, beta)[:, rest], smaller.kept(alpha[:, rest], beta[:, rest])
    )
    np.testing.assert_allclose(
        whole.losses(alpha, beta, maker.metric),
        smaller.losses(alpha[:, rest], beta[:, rest], maker.metric),
        atol=1e-9,
    )


@every_kind
@checks
@given(seed=SEEDS)
def test_what_a_dropped_expert_said_may_be_anything(maker: Maker, seed: int) -> None:
    alpha, beta = population(seed, 1)
    fusion = maker.make(seed)
    dropped = np.flatnonzero(~fusion.kept(alpha, beta)[0]).tolist()
    np.testing.assert_allclose(
        fusion.losses(alpha, beta, maker.metric),
        maker.make(seed, noisy=dropped).losses(alpha, beta, maker.metric),
        atol=1e-12,
    )


@every_kind
@checks
@given(seed=SEEDS)
def test_no_expert_is_dropped_that_has_weight_and_reaches_the_cut(maker: Maker, seed: int) -> None:
    alpha, beta = np.ones((1, POOL)), np.eye(POOL)[:1]
    fusion = maker.make(seed)
    np.testing.assert_array_equal(fusion.kept(alpha, beta), beta != 0)
    alpha[0, 0] = CUT
    np.testing.assert_array_equal(fusion.kept(alpha, beta), beta != 0)


@every_kind
@checks
@given(seed=SEEDS, silent=st.lists(st.integers(0, POOL - 1), unique=True, max_size=POOL - 1))
def test_a_silent_expert_counts_as_if_it_were_not_there(
    maker: Maker, seed: int, silent: list[int]
) -> None:
    alpha, beta = population(seed, 4)
    # Someone with a positive weight is left either way, or the candidate guesses.
    rest = [i for i in range(POOL) if i not in silent]
    alpha[:, rest[0]], beta[:, rest[0]] = 1.0, 0.5
    np.testing.assert_allclose(
        maker.make(seed, silent=silent).losses(alpha, beta, maker.metric),
        maker.make(seed, rest).losses(alpha[:, rest], beta[:, rest], maker.metric),
        atol=1e-9,
    )


@every_kind
@checks
@given(seed=SEEDS)
def test_without_a_positive_expert_nobody_is_called_and_all_guess_alike(
    maker: Maker, seed: int
) -> None:
    fusion = maker.make(seed)
    alpha, beta = population(seed, 3)
    beta = -np.abs(beta)
    beta[0] = 0.0
    assert not fusion.kept(alpha, beta).any()
    losses = fusion.losses(alpha, beta, maker.metric)
    np.testing.assert_array_equal(losses[1:], losses[:1].repeat(2, axis=0))


@pytest.mark.parametrize(
    "maker",
    [maker for name, maker in MAKERS.items() if name != "choice entropy"],
    ids=[name for name in MAKERS if name != "choice entropy"],
)
@checks
@given(seed=SEEDS, scale=st.sampled_from([1e-3, 0.3, 7.0, 1e3]))
def test_the_scale_of_the_weights_does_not_count(maker: Maker, seed: int, scale: float) -> None:
    """But for the sharpness of fused option probabilities."""
    fusion = maker.make(seed)
    alpha, beta = population(seed, 4)
    np.testing.assert_allclose(
        fusion.losses(alpha, beta, maker.metric),
        fusion.losses(alpha, beta * scale, maker.metric),
        atol=1e-9,
    )


@every_kind
def test_blocks_and_steps_do_not_change_what_is_computed(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    alpha, beta = population(3, 50)
    expected = maker.make(3).losses(alpha, beta, maker.metric)
    monkeypatch.setattr(sparse, "_STEP", 20)
    monkeypatch.setattr(sparse, "_LENGTH", 9)
    np.testing.assert_allclose(
        maker.make(3).losses(alpha, beta, maker.metric), expected, atol=1e-12
    )


@every_kind
def test_refuses_populations_that_do_not_fit(maker: Maker) -> None:
    fusion = maker.make(1)
    ones = np.ones((2, POOL))
    for alpha, beta, named in (
        (ones[:, 1:], ones, "alpha"),
        (ones, ones[:1], "beta"),
        (ones[0], ones, "alpha"),
        (ones * 1.01, ones, "alpha"),
        (-ones, ones, "alpha"),
        (ones, ones * np.inf, "beta"),
        (ones * np.nan, ones, "alpha"),
    ):
        with pytest.raises(PopulationError, match=named):
            fusion.losses(alpha, beta, maker.metric)
        with pytest.raises(PopulationError, match=named):
            fusion.kept(alpha, beta)


@every_kind
def test_refuses_a_metric_that_it_does_not_measure(maker: Maker) -> None:
    ones = np.ones((1, POOL))
    with pytest.raises(FusionMetricError, match="chrf"):
        maker.make(1).losses(ones, ones, "chrf")
