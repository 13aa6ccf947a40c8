"""What is compared: methods of a merge job as users ask for them, all with one budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.evidence.settings import Case

from evomerge.app.schemas.presets import METHOD_PRESETS, Preset
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.method import build_optimizer

DEFAULT, PAPER, LORAHUB, BASE = "default", "paper", "lorahub", "base"
SEARCHES = (LORAHUB, "pso", "random")
RULES = (
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "della",
    "breadcrumbs",
    "emr",
)
FIXED = (BASE, "best_expert", "uniform")
METHODS = (DEFAULT, PAPER, *SEARCHES, *RULES, *FIXED)
# Experts that an oracle picks for the rules where the pool is a whole repository: fewer than ten.
TOP_K = 8

Json = dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A way to merge.

    Attributes:
        name: under which it is recorded.
        spec: fields of the job spec that make it.
        oracle: whether only the experts that an oracle finds best take part.
        reshuffled: whether every candidate is scored on rows of its own, as the reference does.
    """

    name: str
    spec: Json = field(default_factory=dict)
    oracle: bool = False
    reshuffled: bool = False

    def fields(self, order: Sequence[str] | None) -> Json:
        """The fields, with an oracle's choice in them."""
        if order is None:
            return self.spec
        return {**self.spec, "method": {**self.spec["method"], "order": list(order)}}


def methods(names: Sequence[str], case: Case, evaluations: int) -> list[Method]:
    """The methods of these names, each with `evaluations` candidates in all.

    What a search learns from each expert alone counts as much as any other candidate.
    """
    return [_method(name, case, evaluations) for name in names]


def _method(name: str, case: Case, evaluations: int) -> Method:
    experts = len(case.experts)
    if name in (DEFAULT, PAPER):
        return Method(name, {"method": evo_merging(name, evaluations, experts)})
    if name in SEARCHES:
        # NGOpt begins at zero, whatever the experts alone lose.
        own = evaluations if name == LORAHUB else evaluations - experts
        return Method(name, {"method": {"name": name, "evaluations": own}})
    oracle = name in RULES and case.setting == "out-of-domain"
    return Method(name, {"method": {"name": name}}, oracle=oracle and experts > TOP_K)


def evo_merging(
    preset: Preset, evaluations: int, experts: int, changed: Mapping[str, Any] | None = None
) -> Json:
    """A preset whose stages share a budget as they do in the preset.

    What is scored before the first stage counts, where the search learns from it: of the paper's
    recipe nothing is.

    Args:
        changed: fields in place of the preset's, such as fewer `stages`.

    Raises:
        InvalidParameterError: a stage is left with less than one population.
    """
    left = evaluations
    while True:
        method = _shared(preset, left, changed or {})
        above = _competing(method, experts) - evaluations
        if above <= 0:
            return method
        left -= above


def _shared(preset: Preset, evaluations: int, changed: Mapping[str, Any]) -> Json:
    fields: Json = {**METHOD_PRESETS[preset], **changed}
    stages = fields["stages"]
    whole = sum(fields[stage]["evaluations"] for stage in stages)
    shared = {
        stage: {**fields[stage], "evaluations": evaluations * fields[stage]["evaluations"] // whole}
        for stage in stages
    }
    return {"name": "evo-merging", "preset": preset, **changed, **shared}


def _competing(method: Json, experts: int) -> int:
    """Candidates that a search asks for at most and that may win."""
    job = {"pool": "pool", "objective": {"datasets": [{"dataset": "rows"}]}, "method": method}
    optimizer = build_optimizer(MergeJobSpec.model_validate(job), experts)
    return optimizer.planned_evaluations - optimizer.baseline_evaluations
