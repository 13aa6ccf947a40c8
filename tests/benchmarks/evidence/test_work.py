"""Searches over a tiny pool, measured once and proven."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.evidence.ablations import ablations
from benchmarks.evidence.methods import LORAHUB, METHODS, Method, methods
from benchmarks.evidence.plan import costs, plan_lines
from benchmarks.evidence.records import Records
from benchmarks.evidence.running import Sizes
from benchmarks.evidence.settings import cases
from benchmarks.evidence.work import Work, do
from tests.support.evidence import pool
from tests.support.tiny import make_adapter, make_base

from evomerge.app.worker.method import build_optimizer

SIZES = Sizes(evaluations=80, search=4, held_out=3)
SEARCHED = ("default", "paper", "pso", "ties", "base", "best_expert")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("evidence")
    base = make_base(folder / "base")
    tiny = pool(base, folder / "experts")
    for seed, place in enumerate(tiny.experts.values()):
        make_adapter(place, base, seed)
    case = cases(tiny, "out-of-domain")[0]
    chosen = tuple(methods(SEARCHED, case, SIZES.evaluations))
    return Work(tiny, case, 1, SIZES, chosen, folder / "records.jsonl", folder)


def test_what_is_recorded_is_not_measured_again(work: Work) -> None:
    first = replace(work, methods=work.methods[:1])
    planned = costs([first], {})
    assert do(first).startswith("out-of-domain number-a seed 1: 1 new")
    assert do(work).startswith("out-of-domain number-a seed 1: 5 new")
    assert "0 new" in do(work)
    records = Records(work.records).read()
    found = work.found(records)
    assert [one.method for one in found] == list(SEARCHED)
    assert costs([work], records) == []
    # Patience may end a search early.
    assert found[0].tokens <= planned[0].tokens
    for one in found:
        assert one.evaluations <= SIZES.evaluations
        assert len(one.losses) == len(one.scores) == len(one.weights) == SIZES.held_out
        assert np.isfinite(one.losses).all()
        assert one.curve[-1][1] == pytest.approx(one.search_loss)
        assert [point[1] for point in one.curve] == sorted((p[1] for p in one.curve), reverse=True)
    by_name = {one.method: one for one in found}
    assert by_name["base"].winner == {}
    assert list(by_name["best_expert"].winner.values()) == [1.0]
    assert by_name["default"].search_loss <= by_name["best_expert"].search_loss


def test_another_seed_searches_on_other_rows_and_is_proven_on_the_same(work: Work) -> None:
    other = replace(work, seed=2)
    assert other.bench.search != work.bench.search
    assert other.bench.held_out == work.bench.held_out
    assert other.missing(Records(work.records).read()) == list(work.methods)


def test_reshuffled_candidates_are_not_compared_on_the_same_rows(work: Work) -> None:
    same = Method("same", {"method": {"name": "random", "evaluations": 20}})
    plain, reshuffled = (work.bench.run(replace(same, reshuffled=on), None) for on in (False, True))
    assert plain.key != reshuffled.key
    assert plain.evaluations == reshuffled.evaluations == 24
    assert plain.curve[0][1] != reshuffled.curve[0][1]


def test_the_plan_counts_what_is_missing(work: Work) -> None:
    lines = list(plan_lines("tiny", [work], costs([work], {}), speed=100.0))
    assert lines[0] == "tiny: 1 cases x 1 seeds x 6 methods, 4 experts"
    assert "6 runs to do" in lines[-1]
    assert "minutes" in lines[-1]


def test_every_method_and_ablation_is_a_job_within_the_budget(work: Work) -> None:
    evaluations, experts = 200, len(work.case.experts)
    every = [*methods(METHODS, work.case, evaluations), *ablations(work.case, evaluations)]
    assert len({method.name for method in every}) > len(METHODS)
    for method in every:
        spec = work.bench.spec(method.spec)
        if method.name == LORAHUB:
            # Making its optimizer needs nevergrad, a further library.
            assert spec.method.evaluations == evaluations
            continue
        optimizer = build_optimizer(spec, experts)
        spent = optimizer.planned_evaluations - optimizer.baseline_evaluations
        assert 0 < spent <= evaluations, method.name
