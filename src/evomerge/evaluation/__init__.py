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
from evomerge.evaluation.metrics import check_metric, metric_losses, score_of
from evomerge.evaluation.normal_form import content_hash, from_jsonl, to_jsonl
from evomerge.evaluation.objective import Objective
from evomerge.evaluation.reading.reader import kind_of, read_examples, stream_examples
from evomerge.evaluation.reading.records import Format, Limits
from evomerge.evaluation.report import Contender, Report, compare
from evomerge.evaluation.significance import paired_p_value
from evomerge.evaluation.split import Split, split

__all__ = [
    "Contender",
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
    "Report",
    "RowError",
    "Split",
    "bootstrap_interval",
    "check_metric",
    "compare",
    "content_hash",
    "from_jsonl",
    "kind_of",
    "metric_losses",
    "paired_p_value",
    "read_examples",
    "score_of",
    "split",
    "stream_examples",
    "to_jsonl",
    "weighted_mean",
]
