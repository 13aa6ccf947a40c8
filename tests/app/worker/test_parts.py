"""The worker's smaller parts, each alone."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError, OperationalError
from tests.app.worker.conftest import Shop
from tests.support.jobs import SPEC
from tests.support.landscape import LandscapeBench, LandscapeEvaluator, LandscapeModel
from tests.support.searches import bits, run

from evomerge.app.db.repositories.evaluations import Recorded
from evomerge.app.db.retry import retrying
from evomerge.app.schemas.spec import Budget, MergeJobSpec, Metric
from evomerge.app.worker.artifacts import store
from evomerge.app.worker.benches import Recent
from evomerge.app.worker.budget import Allowance
from evomerge.app.worker.inputs import Data
from evomerge.app.worker.method import build_optimizer
from evomerge.app.worker.order import Desk, Order
from evomerge.app.worker.progress import Progress
from evomerge.app.worker.proof import contenders
from evomerge.app.worker.ranks import remark
from evomerge.app.worker.workbench import Baseline, Prepared
from evomerge.optimizers import (
    PROBE,
    Candidate,
    EvoMerging,
    EvoMergingParameters,
    InvalidParameterError,
)
from evomerge.optimizers.probe import WARM_START

CANDIDATE = Candidate(np.ones((1, 3)), np.zeros((1, 3)))
CANDIDATE_OF_4 = Candidate(np.ones((1, 4)), np.zeros((1, 4)))


def recorded(index: int, loss: float, tokens: int = 10) -> Recorded:
    return Recorded(1, "scaling", 2, index, CANDIDATE, loss, tokens, 0.5)


@given(
    limit=st.integers(1, 50),
    tokens=st.integers(1, 9),
    token_limit=st.integers(9, 400),
    cuts=st.lists(st.integers(1, 8), min_size=1, max_size=20),
)
def test_a_budget_is_never_passed(
    limit: int, tokens: int, token_limit: int, cuts: list[int]
) -> None:
    allowance = Allowance(Budget(evaluations=limit, tokens=token_limit))
    for wanted in cuts:
        allowed, name = allowance.affords(wanted, 0.0)
        assert 0 <= allowed <= wanted
        assert (name is None) == (allowed == wanted)
        first = allowance.evaluations == 0
        allowance.spend(allowed, allowed * tokens)
        assert allowance.evaluations <= limit
        assert first or allowed == 0 or allowance.tokens <= token_limit
        if name:
            break


def test_time_that_is_up_allows_nothing_more() -> None:
    allowance = Allowance(Budget(seconds=2.0))
    assert allowance.affords(4, 1.9) == (4, None)
    assert allowance.affords(4, 2.0) == (0, "seconds")


def test_no_budget_allows_everything() -> None:
    assert Allowance(Budget()).affords(10_000, 1e9) == (10_000, None)


def test_progress_foresees_the_rest() -> None:
    progress = Progress()
    assert progress.snapshot(10)["eta_seconds"] is None
    assert progress.snapshot(10)["best_loss"] is None
    progress.add([recorded(0, math.nan), recorded(1, 2.0), recorded(2, 3.0)], {"scaling"})
    shown = progress.snapshot(10)
    assert shown == {
        "stage": "scaling",
        "generation": 2,
        "evaluations": 3,
        "planned_evaluations": 10,
        "best_loss": 2.0,
        "tokens": 30,
        "tokens_per_second": 20.0,
        "eta_seconds": 3.5,
    }
    note = progress.metrics([recorded(0, math.nan), recorded(1, 2.0), recorded(2, 3.0)])
    assert note.type == "metrics"
    assert note.data is not None
    assert (note.data["generation_best"], note.data["generation_mean"]) == (2.0, 2.5)
    assert note.data["broken"] == 1


def test_progress_takes_no_best_from_a_stage_that_does_not_compete() -> None:
    progress = Progress()
    progress.add([recorded(0, 2.0)], {"denoising"})
    assert progress.snapshot(10)["best_loss"] is None
    assert progress.snapshot(10)["evaluations"] == 1


def test_the_baselines_evaluations_are_beside_the_budget() -> None:
    allowance = Allowance(Budget(evaluations=6), uncounted=4)
    allowance.spend(4, 40)
    assert allowance.affords(6, 0.0) == (6, None)
    allowance.spend(6, 60)
    assert allowance.affords(1, 0.0) == (0, "evaluations")


def test_the_paper_preset_is_the_papers_search() -> None:
    """Bar the experts alone, which come first, may not win and are not counted."""
    spec = MergeJobSpec.model_validate(
        {**SPEC, "method": {"name": "evo-merging", "preset": "paper"}}
    )
    optimizer = build_optimizer(spec, 3)
    assert spec.composition == "factor"
    assert optimizer.stages == ("probe", "denoising", "scaling")
    assert optimizer.competing == {"denoising", "scaling"}
    assert optimizer.planned_evaluations - optimizer.baseline_evaluations == 1200

    def loss(candidate: Candidate) -> float:
        alone = candidate.beta.max() == 1.0
        return -1.0 if alone else float(((candidate.alpha * candidate.beta - 0.2) ** 2).sum())

    told = run(optimizer, loss)
    published = EvoMerging(3, EvoMergingParameters(population=20), seed=spec.seed)
    assert bits(told.populations[1:]) == bits(run(published, loss).populations)
    found, expected = optimizer.best, published.best
    assert found is not None
    assert expected is not None
    assert (found.stage, found.generation, found.index, found.loss) == (
        expected.stage,
        expected.generation,
        expected.index,
        expected.loss,
    )


@pytest.mark.parametrize(
    ("method", "searched"),
    [
        ({"name": "evo-merging"}, 16),
        ({"name": "evo-merging", "top_k": None}, 20),
        ({"name": "evo-merging", "preset": "paper", "population": 30}, 20),
        ({"name": "cma"}, 20),
        ({"name": "cma", "top_k": 5}, 5),
    ],
)
def test_how_many_experts_of_a_large_pool_are_searched_over(
    method: dict[str, object], searched: int
) -> None:
    spec = MergeJobSpec.model_validate({**SPEC, "method": method})
    optimizer = build_optimizer(spec, 20)
    while optimizer.stage in (PROBE, WARM_START):
        asked = optimizer.ask()
        optimizer.tell(asked, np.arange(float(len(asked))))
    candidate = optimizer.ask()[0]
    assert (candidate.beta != 0).sum() == searched


def test_every_method_scores_each_expert_alone_first() -> None:
    scaling = {"evaluations": 12}
    for method in (
        {"name": "evo-merging", "scaling": scaling, "denoising": scaling},
        {"name": "evo-merging", "preset": "paper"},
        {"name": "cma", "scaling": scaling},
        {"name": "random", "evaluations": 40},
        {"name": "pso", "evaluations": 40},
        {"name": "best_expert"},
        {"name": "base"},
        {"name": "uniform"},
        {"name": "ties", "top_k": 2},
    ):
        spec = MergeJobSpec.model_validate({**SPEC, "method": method})
        optimizer = build_optimizer(spec, 3)
        beside = method.get("preset") == "paper" or method["name"] in ("base", "uniform", "ties")
        assert optimizer.stage == PROBE
        assert (PROBE in optimizer.competing) == (not beside)
        assert [c.beta[0].tolist() for c in optimizer.ask()] == np.eye(3).tolist()


def test_a_budget_below_one_population_is_refused_by_name() -> None:
    method = {"name": "cma", "population": 10, "scaling": {"evaluations": 9}}
    spec = MergeJobSpec.model_validate({**SPEC, "method": method})
    with pytest.raises(InvalidParameterError, match=r"scaling\.evaluations"):
        build_optimizer(spec, 3)


@pytest.mark.parametrize(
    ("rank", "said"),
    [
        (None, None),
        (1, None),
        (16, None),
        (512, None),
        (4, "needs --max-lora-rank 8 or more there, or output.rank: 1 here"),
        (40, "needs --max-lora-rank 64 or more there, or output.rank: 32 here"),
        (511, "needs --max-lora-rank 512 or more there, or output.rank: 320 here"),
        (800, "no vLLM serves it. output.rank: 512 or less compresses it"),
    ],
)
def test_a_rank_that_servers_refuse_is_remarked_on(rank: int | None, said: str | None) -> None:
    found = remark(rank)
    if said is None:
        assert found is None
    else:
        assert found is not None
        assert said in found
        assert f"rank {rank}," in found


async def test_a_refused_rank_is_told_of_once_the_job_succeeds(shop: Shop) -> None:
    class Ranked(LandscapeBench):
        def merge(self, candidate: Candidate) -> LandscapeModel:
            return replace(super().merge(candidate), rank=40)

    await shop.add()
    await shop.run_until(shop.worker_with(Ranked()), "succeeded")
    warnings = [event for event in await shop.events() if event.level == "warn"]
    assert [(event.message, event.data) for event in warnings] == [(remark(40), {"rank": 40})]
    assert str(remark(40)) in shop.artifacts()["README.md"].decode()


def test_the_contenders_stand_in_a_fixed_order() -> None:
    winner = Candidate(np.ones((2, 3)), np.full((2, 3), 0.2))
    found = contenders(winner, 1)
    assert list(found) == ["winner", "base", "best_expert", "uniform"]
    assert found["best_expert"].beta.tolist() == [[0, 1, 0], [0, 1, 0]]
    assert list(contenders(winner, None)) == ["winner", "base", "uniform"]


async def test_baselines_of_a_pool_stand_behind_those_of_every_job(shop: Shop) -> None:
    """Each is measured by its own evaluator, once, by the metrics that it has."""
    calls: list[tuple[str, int]] = []

    def flat(name: str, loss: float) -> Callable[[Metric], LandscapeEvaluator]:
        async def before(_: int) -> None:
            calls.append((name, len(calls)))

        return lambda _: LandscapeEvaluator(loss=lambda *_: loss, before=before)

    two, three = flat("two", 2.0), flat("three", 3.0)
    more = {
        "second": Baseline(CANDIDATE_OF_4, two),
        "twin": Baseline(CANDIDATE_OF_4, two),
        "third": Baseline(CANDIDATE_OF_4, three, frozenset({"cross_entropy"})),
    }

    class More(LandscapeBench):
        async def __call__(self, order: Order, data: Data, desk: Desk) -> Prepared:
            return replace(await super().__call__(order, data, desk), baselines=more)

    objective = {"datasets": [{"dataset": "facts"}], "report": ["exact_match"]}
    await shop.add(objective=objective)
    job = await shop.run_until(shop.worker_with(More()), "succeeded", "failed")
    assert job.result is not None, job.error
    entropy, matches = job.result["held_out"]
    names = ["winner", "base", "best_expert", "uniform", "second", "twin", "third"]
    assert [one["name"] for one in entropy["contenders"]] == names
    assert [one["loss"] for one in entropy["contenders"][4:]] == [2.0, 2.0, 3.0]
    assert [one["name"] for one in matches["contenders"]] == names[:-1]
    # Both of one evaluator in one call, for each metric.
    assert [name for name, _ in calls] == ["two", "three", "two"]


def test_artifacts_replace_what_an_earlier_attempt_left(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts" / "mj_1"
    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    (folder.parent / ".mj_1.killed").mkdir()
    model = LandscapeModel(CANDIDATE, LandscapeEvaluator())
    first = store(folder, model, {"seed": 7}, "card")
    assert [each.name for each in first] == ["README.md", "manifest.json", "weights.npy"]
    assert [path.name for path in folder.parent.iterdir()] == ["mj_1"]
    assert store(folder, model, {"seed": 7}, "card") == first


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    class Broken(LandscapeModel):
        def write(self, folder: Path) -> None:
            super().write(folder)
            raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "artifacts" / "mj_1"
    with pytest.raises(OSError, match="No space left"):
        store(folder, Broken(CANDIDATE, LandscapeEvaluator()), {}, "")
    assert list(folder.parent.iterdir()) == []


def test_the_values_last_used_are_kept() -> None:
    made: list[str] = []
    recent: Recent[str, None] = Recent(2)
    for key in "abacab":
        recent.get(key, lambda key=key: made.append(key))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]


async def test_an_absent_database_is_tried_again() -> None:
    calls = 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise OperationalError("SELECT 1", {}, Exception("connection refused"))
        return calls

    assert await retrying(work, 10.0) == 3


async def test_a_database_that_stays_away_is_told_of() -> None:
    async def work() -> None:
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    with pytest.raises(OperationalError):
        await retrying(work, 0.0)


async def test_an_error_of_ours_is_not_tried_again() -> None:
    calls = 0

    async def work() -> None:
        nonlocal calls
        calls += 1
        raise IntegrityError("INSERT", {}, Exception("duplicate"))

    with pytest.raises(IntegrityError):
        await retrying(work, 10.0)
    assert calls == 1
