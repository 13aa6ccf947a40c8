"""What every evaluator promises, whatever it reaches its models by."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from tests.support.evaluators import SUBJECTS, Fresh, Subject


@pytest.fixture(scope="module", params=sorted(SUBJECTS))
def fresh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fresh]:
    with SUBJECTS[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture
async def subject(fresh: Fresh) -> AsyncIterator[Subject]:
    async with fresh() as made:
        yield made


async def test_losses_and_weights_have_the_shapes_promised(subject: Subject) -> None:
    scores = await subject.evaluator.score(subject.candidates, subject.examples)
    assert scores.losses.shape == (len(subject.candidates), len(subject.examples))
    assert scores.weights.shape == (len(subject.examples),)
    assert scores.losses.dtype == scores.weights.dtype == np.float64
    assert np.isfinite(scores.losses).all()
    assert (scores.weights > 0).all()
    assert np.isfinite(scores.means()).all()


async def test_the_same_call_gives_the_same_bits(subject: Subject) -> None:
    first = await subject.evaluator.score(subject.candidates, subject.examples)
    again = await subject.evaluator.score(subject.candidates, subject.examples)
    assert np.array_equal(first.losses, again.losses)
    assert np.array_equal(first.weights, again.weights)


async def test_losses_stand_in_the_order_of_candidates_and_examples(subject: Subject) -> None:
    scores = await subject.evaluator.score(subject.candidates, subject.examples)
    turned = await subject.evaluator.score(subject.candidates[::-1], subject.examples[::-1])
    np.testing.assert_allclose(turned.losses[::-1, ::-1], scores.losses, atol=1e-5)
    assert np.array_equal(turned.weights[::-1], scores.weights)


async def test_equal_candidates_have_equal_losses(subject: Subject) -> None:
    first, last = 1, len(subject.candidates) - 1
    assert subject.candidates[first].agrees(subject.candidates[last])
    scores = await subject.evaluator.score(subject.candidates, subject.examples)
    np.testing.assert_allclose(scores.losses[first], scores.losses[last], atol=1e-5)


async def test_a_population_cut_at_its_width_scores_as_a_whole_bit_for_bit(
    subject: Subject,
) -> None:
    width = subject.evaluator.width(subject.examples)
    whole = await subject.evaluator.score(subject.candidates, subject.examples)
    for begin in range(0, len(subject.candidates), width):
        cut = subject.candidates[begin : begin + width]
        scores = await subject.evaluator.score(cut, subject.examples)
        assert np.array_equal(scores.losses, whole.losses[begin : begin + width])


async def test_width_is_at_least_one_and_depends_on_the_examples_alone(subject: Subject) -> None:
    width = subject.evaluator.width(subject.examples)
    assert width >= 1
    await subject.evaluator.score(subject.candidates, subject.examples)
    assert subject.evaluator.width(subject.examples) == width
    assert subject.evaluator.width(subject.examples * 1000) == 1


async def test_one_candidate_on_one_example(subject: Subject) -> None:
    whole = await subject.evaluator.score(subject.candidates, subject.examples)
    for index, example in enumerate(subject.examples):
        scores = await subject.evaluator.score(subject.candidates[2:3], [example])
        np.testing.assert_allclose(scores.losses, whole.losses[2:3, index : index + 1], atol=1e-5)


async def test_usage_says_what_it_cost(subject: Subject) -> None:
    # Whatever a server has to be asked first, once, is no part of a candidate's cost.
    await subject.evaluator.score(subject.candidates[:1], subject.examples)
    one = await subject.evaluator.score(subject.candidates[:1], subject.examples)
    all_of_them = await subject.evaluator.score(subject.candidates, subject.examples)
    each = getattr(one.usage, subject.counts)
    assert each > 0
    assert one.usage.seconds > 0
    assert getattr(all_of_them.usage, subject.counts) == len(subject.candidates) * each


async def test_the_event_loop_is_free_while_it_scores(subject: Subject) -> None:
    scoring = asyncio.create_task(subject.evaluator.score(subject.candidates, subject.examples))
    await asyncio.sleep(0)
    assert not scoring.done()
    await scoring


async def test_cancelling_ends_it_and_leaves_it_usable(subject: Subject) -> None:
    before = await subject.evaluator.score(subject.candidates, subject.examples)
    scoring = asyncio.create_task(subject.evaluator.score(subject.candidates, subject.examples))
    await asyncio.sleep(0)
    scoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scoring
    after = await subject.evaluator.score(subject.candidates, subject.examples)
    assert np.array_equal(before.losses, after.losses)
