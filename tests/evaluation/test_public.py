"""The names that the rest of the package may count on."""

from __future__ import annotations

import subprocess
import sys

from evomerge import evaluation

PUBLIC = [
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


def test_public_names() -> None:
    assert sorted(evaluation.__all__) == PUBLIC
    assert all(hasattr(evaluation, name) for name in PUBLIC)


def test_importing_it_loads_no_optional_library() -> None:
    """A base install has none of them."""
    code = (
        "import sys, evomerge.evaluation;"
        "print(*{'torch', 'pyarrow', 'rouge_score', 'sacrebleu', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
