"""Everything that a job reads, checked against what it was created with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from evomerge.app.schemas.inputs import DatasetInput
from evomerge.app.schemas.remote import Remote
from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.worker.errors import InputChangedError
from evomerge.connectors.bmm import their_dataset
from evomerge.evaluation import Example, Objective, from_jsonl, split


@dataclass(frozen=True)
class Side:
    """One side of the split: the examples of every dataset end to end."""

    examples: tuple[Example, ...]
    objective: Objective


@dataclass(frozen=True)
class Data:
    """What the search sees, and what it is proven on."""

    search: Side
    held_out: Side


def read_data(spec: MergeJobSpec, datasets: Sequence[DatasetInput]) -> Data:
    """Read and split the datasets; a provider's own are an opaque example each.

    Raises:
        InputChangedError: a file is gone or its content is not what the job was created with.
        EvaluationError: a file cannot be read or split.
    """
    if spec.remote is not None and spec.remote.provider == "bmm":
        return _theirs(spec.remote, datasets)
    objective = spec.objective
    splits = [
        split(
            examples_of(dataset),
            objective.held_out,
            spec.seed,
            objective.search_examples,
            objective.held_out_examples,
        )
        for dataset in datasets
    ]
    weights = tuple(dataset.weight for dataset in datasets)
    return Data(
        search=_side([parts.search for parts in splits], weights),
        held_out=_side([parts.held_out for parts in splits], weights),
    )


def metrics(spec: MergeJobSpec) -> list[Metric]:
    """The metrics of the proof: the search's own first, each once."""
    return list(dict.fromkeys([spec.objective.metric, *spec.objective.report]))


def examples_of(dataset: DatasetInput) -> list[Example]:
    """Every row of a dataset.

    Raises:
        InputChangedError: the file is gone or its content is not what the job was created with.
    """
    what = f"the file of dataset {dataset.name!r}"
    if dataset.path is None:
        raise InputChangedError(what, "is not here")
    try:
        data = dataset.path.read_bytes()
    except FileNotFoundError as error:
        raise InputChangedError(what, "has gone") from error
    if sha256(data).hexdigest() != dataset.content_hash:
        raise InputChangedError(what, "has changed")
    return from_jsonl(data)


def _theirs(remote: Remote, datasets: Sequence[DatasetInput]) -> Data:
    """A session's datasets. Where none proves the winner, the held-out side has no example."""
    weights = tuple(dataset.weight for dataset in datasets)
    objective = Objective((1,) * len(datasets), weights)
    searched = [their_dataset("" if d.name == remote.model else d.name) for d in datasets]
    proven = [their_dataset(name) for name in remote.held_out or ()]
    return Data(Side(tuple(searched), objective), Side(tuple(proven), objective))


def _side(parts: Sequence[tuple[Example, ...]], weights: tuple[float, ...]) -> Side:
    return Side(
        examples=tuple(example for part in parts for example in part),
        objective=Objective(tuple(len(part) for part in parts), weights),
    )
