"""How a job's spec asks experts in the output space."""

from __future__ import annotations

from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.connectors.output.task import Task
from evomerge.evaluation import DatasetKind
from evomerge.merging.output.fusion import fusion_kind


def output_task(spec: MergeJobSpec, rows: DatasetKind) -> Task:
    """The task of rows of a kind.

    Raises:
        FusionMetricError: such rows are not fused under the objective's metric.
        TaskSettingError: a setting is out of range.
    """
    objective, fusion = spec.objective, spec.fusion
    return Task(
        kind=fusion_kind(rows, objective.metric),
        metric=objective.metric,
        reported=tuple(one for one in objective.report if one != objective.metric),
        max_tokens=objective.max_new_tokens,
        answer_prefix=objective.answer_prefix,
        samples=fusion.samples,
        choice_method=fusion.choice_scores,
    )
