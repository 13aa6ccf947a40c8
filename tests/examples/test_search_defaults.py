"""The variants of the search-defaults benchmark are jobs, and none may score more than another."""

from __future__ import annotations

import pytest
from benchmarks.search_defaults import variants

from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.method import build_optimizer

OBJECTIVE = {"datasets": [{"dataset": "target"}]}


@pytest.mark.parametrize("experts", [12, 120])
def test_no_variant_scores_more_than_the_budget_and_none_wastes_much(experts: int) -> None:
    found = variants(500, experts)
    assert {"default", "paper"} <= set(found)
    for fields in found.values():
        spec = MergeJobSpec.model_validate({"pool": "pool", "objective": OBJECTIVE, **fields})
        optimizer = build_optimizer(spec, experts)
        counted = optimizer.planned_evaluations - optimizer.baseline_evaluations
        assert 460 < counted <= 500
