"""The signed log-linear pool, against its definition and by its properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.choice import ChoiceFusion, fuse_choice
from evomerge.merging.output.errors import EvidenceError, FusionMetricError
from evomerge.merging.output.fusion import CUT

SEEDS = st.integers(0, 1 << 32)


def defined(log_probs: FloatArray, alpha: FloatArray, beta: FloatArray, head: float) -> FloatArray:
    """p* of one example by the formulas, option by option; log_probs (N, m)."""
    _, m = log_probs.shape
    told = ~np.isnan(log_probs[:, 0])
    takes_part = [i for i in range(len(beta)) if alpha[i] >= CUT and beta[i] != 0]
    if not any(beta[i] > 0 for i in takes_part):
        return np.full(m, 1 / m)
    plus, minus = np.zeros(m), np.zeros(m)
    plausible: set[int] = set()
    for i in takes_part:
        if not told[i]:
            continue
        z = log_probs[i] - log_probs[i].mean()
        foremost = sorted(range(m), key=lambda c: (-round(abs(z[c]), 9), c))
        for c in foremost[: math.ceil(alpha[i] * m)]:
            (plus if beta[i] > 0 else minus)[c] += beta[i] * z[c]
        if beta[i] > 0:
            p = np.exp(log_probs[i])
            plausible |= {c for c in range(m) if p[c] >= head * p.max()}
    least = min((minus[c] for c in plausible), default=0.0)
    scores = plus + [minus[c] if c in plausible else least for c in range(m)]
    raised = np.exp(scores - scores.max())
    return raised / raised.sum()


@st.composite
def cases(draw: st.DrawFn) -> tuple[FloatArray, np.ndarray, np.ndarray, FloatArray, FloatArray]:
    """Ragged evidence with silent experts, and a population with ties, drops and signs."""
    random = np.random.default_rng(draw(SEEDS))
    n, experts, widest = draw(st.integers(1, 6)), draw(st.integers(1, 5)), draw(st.integers(1, 7))
    log_probs = random.integers(-6, 1, (n, experts, widest)) * 0.7
    log_probs[random.random((n, experts)) < 0.2] = np.nan
    options = random.integers(1, widest + 1, n)
    truth = random.integers(0, options)
    p = draw(st.integers(1, 5))
    alpha = random.choice([0.0, 0.04, 0.2, 0.5, 0.77, 1.0], (p, experts))
    beta = random.choice([-1.3, -0.2, 0.0, 0.4, 1.0], (p, experts))
    return log_probs, options, truth, alpha, beta


@settings(deadline=None)
@given(case=cases(), head=st.sampled_from([0.0, 0.1, 0.6, 1.0]))
def test_losses_are_those_of_the_definition(case: tuple, head: float) -> None:  # type: ignore[type-arg]
    log_probs, options, truth, alpha, beta = case
    fusion = ChoiceFusion(log_probs, options, truth, head=head)
    entropy = fusion.losses(alpha, beta, "cross_entropy")
    misses = fusion.losses(alpha, beta, "choice_accuracy")
    distributions = fusion.distributions(alpha, beta)
    for p in range(len(alpha)):
        for x, m in enumerate(options):
            expected = defined(log_probs[x, :, :m], alpha[p], beta[p], head)
            np.testing.assert_allclose(distributions[p, x, :m], expected, atol=1e-12)
            assert not distributions[p, x, m:].any()
            assert entropy[p, x] == pytest.approx(-np.log(expected[truth[x]]))
            best = next(c for c in range(m) if expected[c] >= expected.max() - 1e-9)
            assert misses[p, x] == float(best != truth[x])


def test_experts_that_cancel_out_leave_the_first_option() -> None:
    """Though rounding leaves a little of the one or the other."""
    some = 0.7 * np.array([[0, -5], [-1, -2], [-6, -4]])
    log_probs = np.concatenate([some, some[:, ::-1]])[None]
    fusion = ChoiceFusion(log_probs, np.array([2]), np.array([0]))
    misses = fusion.losses(np.ones((1, 6)), np.full((1, 6), 0.3), "choice_accuracy")
    assert misses.tolist() == [[0.0]]


@settings(deadline=None)
@given(case=cases())
def test_one_example_is_fused_as_many_are_scored(case: tuple) -> None:  # type: ignore[type-arg]
    log_probs, options, truth, alpha, beta = case
    losses = ChoiceFusion(log_probs, options, truth).losses(alpha, beta, "cross_entropy")
    for p in range(len(alpha)):
        for x, m in enumerate(options):
            fused = fuse_choice(log_probs[x, :, :m], alpha[p], beta[p])
            assert fused.sum() == pytest.approx(1)
            assert -np.log(fused[truth[x]]) == pytest.approx(losses[p, x], abs=1e-12)


@settings(deadline=None)
@given(seed=SEEDS)
def test_an_expert_alone_answers_as_it_answered(seed: int) -> None:
    random = np.random.default_rng(seed)
    p = random.dirichlet(np.ones(5), 3)
    for i in range(3):
        one = np.eye(3)[i]
        np.testing.assert_allclose(fuse_choice(np.log(p), np.ones(3), one), p[i])


@settings(deadline=None)
@given(seed=SEEDS)
def test_uniform_is_the_plain_average_of_centred_logs(seed: int) -> None:
    log_probs = np.random.default_rng(seed).normal(size=(4, 6))
    z = log_probs - log_probs.mean(axis=1, keepdims=True)
    expected = np.exp(z.mean(axis=0))
    fused = fuse_choice(log_probs, np.ones(4), np.full(4, 1 / 4))
    np.testing.assert_allclose(fused, expected / expected.sum())


@settings(deadline=None)
@given(seed=SEEDS, offset=st.integers(-50, 50))
def test_offsets_of_log_probabilities_do_not_count(seed: int, offset: int) -> None:
    random = np.random.default_rng(seed)
    log_probs = random.integers(-20, 0, (3, 4)) / 8
    alpha, beta = random.random(3), random.normal(size=3)
    moved = log_probs + np.array([0, offset, -offset])[:, None]
    np.testing.assert_allclose(
        fuse_choice(log_probs, alpha, beta), fuse_choice(moved, alpha, beta), atol=1e-9
    )


@settings(deadline=None)
@given(seed=SEEDS, scale=st.floats(0.1, 10))
def test_the_answer_does_not_depend_on_the_scale_of_the_weights(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    fusion = ChoiceFusion(random.normal(size=(9, 4, 3)), np.full(9, 3), random.integers(0, 3, 9))
    alpha, beta = random.random((5, 4)), random.normal(size=(5, 4))
    np.testing.assert_array_equal(
        fusion.losses(alpha, beta, "choice_accuracy"),
        fusion.losses(alpha, beta * scale, "choice_accuracy"),
    )


def test_alpha_keeps_the_largest_rounded_up_and_the_first_of_equals() -> None:
    log_probs = np.log(np.array([[0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3]]))
    z = log_probs[0] - log_probs[0].mean()
    for alpha, keeps in ((0.05, [2]), (1 / 3, [2]), (0.34, [2, 0]), (0.7, [2, 0, 1])):
        masked = np.zeros(3)
        masked[keeps] = z[keeps]
        expected = np.exp(masked) / np.exp(masked).sum()
        fused = fuse_choice(log_probs, np.array([alpha, 1.0]), np.array([1.0, 0.0]))
        np.testing.assert_allclose(fused, expected)
    even = np.log(np.array([[0.8, 0.2]]))
    fused = fuse_choice(even, np.array([0.5]), np.array([1.0]))
    assert fused[0] > fused[1]
    assert fused[1] / fused[0] == pytest.approx((0.2 / 0.8) ** 0.5)


def test_being_disliked_lifts_no_option_above_a_plausible_one() -> None:
    """The negative expert all but excludes the implausible third option."""
    positive = np.log([0.60, 0.39, 0.01])
    negative = np.log([0.700, 0.299, 0.001])
    both = np.array([positive, negative])
    fused = fuse_choice(both, np.ones(2), np.array([1.0, -1.4]))
    assert fused[1] > fused[0] > fused[2]
    assert fused[2] / fused[0] == pytest.approx(0.01 / 0.60), "at the head's least favoured"
    unguarded = fuse_choice(both, np.ones(2), np.array([1.0, -1.4]), head=0.0)
    assert unguarded.argmax() == 2


def test_without_a_positive_expert_all_options_are_alike() -> None:
    log_probs = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    for alpha, beta in (
        ([1.0, 1.0], [-1.0, -0.5]),
        ([1.0, 1.0], [0.0, 0.0]),
        ([1.0, 0.01], [-1.0, 1.0]),
    ):
        np.testing.assert_allclose(fuse_choice(log_probs, np.array(alpha), np.array(beta)), 1 / 3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"log_probs": np.zeros((2, 3))}, "log_probs"),
        ({"log_probs": np.full((2, 1, 3), -np.inf)}, "log_probs"),
        ({"options": np.array([3, 4])}, "options"),
        ({"options": np.array([3, 0])}, "options"),
        ({"options": np.array([3])}, "options"),
        ({"truth": np.array([0, 3])}, "truth"),
        ({"truth": np.array([0])}, "truth"),
        ({"head": 1.5}, "head"),
    ],
)
def test_refuses_evidence_that_does_not_fit(change: dict[str, object], named: str) -> None:
    good = {
        "log_probs": np.zeros((2, 1, 3)),
        "options": np.array([3, 3]),
        "truth": np.array([0, 2]),
        "head": 0.1,
    }
    ChoiceFusion(**good)  # type: ignore[arg-type]
    with pytest.raises(EvidenceError, match=named):
        ChoiceFusion(**(good | change))  # type: ignore[arg-type]


def test_padding_may_be_anything() -> None:
    log_probs = np.array([[[-1.0, -2.0, np.inf]]])
    fusion = ChoiceFusion(log_probs, np.array([2]), np.array([0]))
    one = np.ones((1, 1))
    assert fusion.losses(one, one, "cross_entropy")[0, 0] == pytest.approx(np.log1p(np.exp(-1)))


def test_refuses_other_metrics_and_losses_without_truth() -> None:
    one = np.ones((1, 1))
    with pytest.raises(FusionMetricError, match="token_f1"):
        ChoiceFusion(np.zeros((1, 1, 2)), np.array([2]), np.array([0])).losses(one, one, "token_f1")
    with pytest.raises(EvidenceError, match="truth"):
        ChoiceFusion(np.zeros((1, 1, 2)), np.array([2])).losses(one, one, "cross_entropy")
