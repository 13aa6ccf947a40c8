"""What "better" means: examples, splits, metrics, intervals."""

from evomerge.evaluation.errors import (
    DatasetError,
    EvaluationError,
    InvalidArgumentError,
    MetricError,
    MissingLibraryError,
    RowError,
)
from evomerge.evaluation.example import DatasetKind, Example
from evomerge.evaluation.intervals import Interval, bootstrap_interval, weighted_mean
from evomerge.evaluation.normal_form import content_hash, from_jsonl, to_jsonl
from evomerge.evaluation.objective import Objective
from evomerge.evaluation.reading.reader import kind_of, read_examples, stream_examples
from evomerge.evaluation.reading.records import Format, Limits
from evomerge.evaluation.split import Split, split

__all__ = [
    "DatasetError",
    "DatasetKind",
    "EvaluationError",
    "Example",
    "Format",
    "Interval",
    "InvalidArgumentError",
    "Limits",
    "MetricError",
    "MissingLibraryError",
    "Objective",
    "RowError",
    "Split",
    "bootstrap_interval",
    "content_hash",
    "from_jsonl",
    "kind_of",
    "read_examples",
    "split",
    "stream_examples",
    "to_jsonl",
    "weighted_mean",
]
