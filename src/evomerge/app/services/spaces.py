"""Whether a job's experts and datasets are what its space works with."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.app.db.models import Dataset
from evomerge.app.errors import InvalidRequestError
from evomerge.app.output_task import output_task
from evomerge.app.schemas.inputs import ExpertInput
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.connectors.output.errors import ExpertUnableError, TaskSettingError
from evomerge.connectors.output.task import Task, check
from evomerge.evaluation.metrics import CROSS_ENTROPY
from evomerge.merging.output.errors import FusionMetricError
from evomerge.merging.output.fusion import fusion_kind

_KINDS = {
    "lora": ("lora",),
    "checkpoint": ("elm",),
    "output": ("api", "elm"),
    "remote": ("lora", "remote"),
}


def check_space(
    spec: MergeJobSpec, experts: Sequence[ExpertInput], datasets: Sequence[Dataset]
) -> None:
    """Refuse what the space cannot work with, before anything is spent.

    Raises:
        InvalidRequestError: names the field.
    """
    kind = experts[0].kind
    if kind not in _KINDS[spec.space]:
        wanted = " or ".join(map(repr, _KINDS[spec.space]))
        raise InvalidRequestError(
            f"space={spec.space!r}: works with experts of kind {wanted}, these are of kind "
            f"{kind!r}",
            param="space",
        )
    if spec.space == "output":
        _check_output(spec, experts, datasets)


def _check_output(
    spec: MergeJobSpec, experts: Sequence[ExpertInput], datasets: Sequence[Dataset]
) -> None:
    tasks = [_task(spec, number, dataset) for number, dataset in enumerate(datasets)]
    for number, task in enumerate(tasks):
        if task.kind != tasks[0].kind:
            where = f"objective.datasets.{number}.dataset"
            raise InvalidRequestError(
                f"{where}: {datasets[number].name!r} is fused as {task.kind}, the datasets before "
                f"it as {tasks[0].kind}; one job in the output space takes one kind",
                param=where,
            )
    if experts[0].kind == "elm":
        _check_mixture(tasks[0], experts)
        return
    for expert in experts:
        try:
            check(expert.known.expert, tasks[0])
        except ExpertUnableError as error:
            raise InvalidRequestError(f"experts: {error}", param="experts") from error


def _check_mixture(task: Task, experts: Sequence[ExpertInput]) -> None:
    """ELMs are mixed token by token, and a mixture needs two."""
    if task.kind != "scored_text":
        metric, where = "objective.metric", "objective.datasets.0.dataset"
        param = where if task.metric == CROSS_ENTROPY else metric
        raise InvalidRequestError(
            f"{param}: rows are fused as {task.kind} under {task.metric!r}; ELMs of a forest are "
            f"mixed token by token, which takes rows of text or completions under "
            f"{CROSS_ENTROPY!r}",
            param=param,
        )
    if len(experts) < 2:
        raise InvalidRequestError(
            f"pool: the forest has one ELM, {experts[0].name!r}; a mixture takes two at least",
            param="pool",
        )


def _task(spec: MergeJobSpec, number: int, dataset: Dataset) -> Task:
    """How rows of a dataset are asked for; every metric must be of that one kind."""
    where = "objective.metric"
    try:
        task = output_task(spec, dataset.kind)  # type: ignore[arg-type]  # a column of text
        for place, metric in enumerate(spec.objective.report):
            where = f"objective.report.{place}"
            if (kind := fusion_kind(dataset.kind, metric)) != task.kind:  # type: ignore[arg-type]
                raise InvalidRequestError(
                    f"{where}: {metric!r} is of answers fused as {kind}, the search fuses them as "
                    f"{task.kind}: it would take other questions",
                    param=where,
                )
    except FusionMetricError as error:
        message = f"{where}: dataset {dataset.name!r}: {error}"
        raise InvalidRequestError(message, param=where) from error
    except TaskSettingError as error:
        raise InvalidRequestError(f"fusion: {error}", param="fusion") from error
    return task
