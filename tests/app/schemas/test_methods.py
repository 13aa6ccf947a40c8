"""What the specs of baselines mean, and what of them is refused, by field and value."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.support.rules import RULES

from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.method import build_optimizer
from evomerge.optimizers import InvalidParameterError

SCALES, DENSITIES = [0.1, 0.3, 0.5, 0.7, 1.0], [0.5, 0.7, 0.9, 1.0]


def spec(method: dict[str, Any], **fields: Any) -> MergeJobSpec:
    objective = {"datasets": [{"dataset": "facts"}]}
    return MergeJobSpec.model_validate(
        {"pool": "relatives", "objective": objective, "method": method, **fields}
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_the_published_grid(rule: str) -> None:
    asked = spec({"name": rule})
    optimizer = build_optimizer(asked, 3)
    points = {"task_arithmetic": 5, "emr": 1}.get(rule, 20)
    assert optimizer.planned_evaluations - optimizer.baseline_evaluations == points
    densities, scales = asked.method.grid  # type: ignore[union-attr]
    assert scales == ([1.0] if rule == "emr" else SCALES)
    assert densities == (DENSITIES if points == 20 else [1.0])


@pytest.mark.parametrize(
    "name", ["base", "best_expert", "uniform", "random", "pso", "lorahub", *RULES]
)
def test_a_spec_that_is_written_out_means_the_same(name: str) -> None:
    asked = spec({"name": name})
    assert MergeJobSpec.model_validate_json(json.dumps(asked.model_dump(mode="json"))) == asked
    assert asked.composition == ("factor" if name == "lorahub" else "exact")
    assert spec({"name": "lorahub"}, composition="exact").composition == "exact"


def test_experts_are_chosen_by_name() -> None:
    method = {"name": "ties", "order": ["c", "a", "b"], "top_k": 2}
    optimizer = build_optimizer(spec(method), 3, names=["a", "b", "c"])
    optimizer.tell(optimizer.ask(), np.zeros(3))
    assert optimizer.ask()[0].beta.tolist() == [[0.1, 0.0, 0.1]]
    with pytest.raises(InvalidParameterError, match="order='c': is no expert of the pool"):
        build_optimizer(spec(method), 2, names=["a", "b"])


@pytest.mark.parametrize("name", [*RULES, "random", "pso"])
def test_more_experts_than_there_are(name: str) -> None:
    with pytest.raises(InvalidParameterError, match="top_k=4: the pool has 3 experts"):
        build_optimizer(spec({"name": name, "top_k": 4}), 3)


@pytest.mark.parametrize(
    ("method", "fields", "said"),
    [
        ({"name": "ties", "top_k": 0}, {}, "method.ties.top_k"),
        ({"name": "ties", "scales": []}, {}, "method.ties.scales"),
        ({"name": "ties", "scales": [-0.5]}, {}, "method.ties.scales.0"),
        ({"name": "ties", "densities": [0.0]}, {}, "method.ties.densities.0"),
        ({"name": "ties", "densities": [1.1]}, {}, "method.ties.densities.0"),
        ({"name": "ties", "election": "mean"}, {}, "method.ties.election"),
        ({"name": "ties", "scales": [0.5, 0.5]}, {}, "scales: 0.5 stands more than once"),
        ({"name": "emr", "densities": [0.5]}, {}, "method.emr.densities"),
        ({"name": "della", "epsilon": -1}, {}, "method.della.epsilon"),
        ({"name": "breadcrumbs", "gamma": 1}, {}, "method.breadcrumbs.gamma"),
        ({"name": "emr", "order": ["a", "a"]}, {}, "order: 'a' stands more than once"),
        ({"name": "emr", "order": ["a"], "top_k": 2}, {}, "top_k=2: order names 1 experts"),
        ({"name": "lorahub", "bounds": {"low": 0.5, "high": 1}}, {}, "must hold 0"),
        ({"name": "lorahub", "l1": -1}, {}, "method.lorahub.l1"),
        ({"name": "base", "evaluations": 3}, {}, "method.base.evaluations"),
        ({"name": "ties"}, {"composition": "factor"}, "composition='factor'"),
        ({"name": "ties"}, {"layer_groups": 2}, "layer_groups=2"),
        ({"name": "ties"}, {"space": "output"}, "method.name='ties'"),
        ({"name": "base"}, {"space": "output"}, "method.name='base'"),
        ({"name": "ties"}, {"output": {"full_checkpoint": True}}, "output.full_checkpoint"),
    ],
)
def test_what_is_refused_is_named(
    method: dict[str, Any], fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        spec(method, **fields)
    places = [".".join(map(str, each["loc"])) for each in refused.value.errors()]
    assert said in str(refused.value) or said in places


def test_a_rule_makes_a_checkpoint_unless_a_rank_is_given() -> None:
    assert spec({"name": "ties"}).makes_checkpoint
    assert not spec({"name": "ties"}, output={"rank": 8}).makes_checkpoint
    assert not spec({"name": "uniform"}).makes_checkpoint
