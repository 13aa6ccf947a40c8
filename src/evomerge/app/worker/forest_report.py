"""The result of a job over a forest, out of what it made or found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from evomerge.app.schemas.forest_jobs import (
    AverageResult,
    ClusteringResult,
    EvaluationResult,
    TrainingResult,
)
from evomerge.app.schemas.result import ArtifactResult
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.checkpoint.lineage import Lineage


def result(
    versions: Mapping[str, str],
    seconds: float,
    artifacts: Sequence[ArtifactResult],
    *,
    ended_by: str | None = None,
    checkpoint: tuple[Path, str, Lineage] | None = None,
    training: TrainingResult | None = None,
    average: AverageResult | None = None,
    clustering: ClusteringResult | None = None,
    evaluation: EvaluationResult | None = None,
) -> dict[str, Any]:
    """The `result` of a job: JSON, without NaN.

    Args:
        checkpoint: folder, content hash and lineage. The folder is for the service alone.
    """
    made = None
    if checkpoint is not None:
        folder, digest, lineage = checkpoint
        made = {"path": str(folder), "content_hash": digest, "lineage": asdict(lineage)}
    parts: dict[str, BaseModel | None] = {"training": training, "average": average}
    parts |= {"clustering": clustering, "evaluation": evaluation}
    return {
        "ended_by": ended_by,
        "checkpoint": made,
        **{name: part and part.model_dump(mode="json") for name, part in parts.items()},
        "seconds": seconds,
        "versions": dict(versions),
        "artifacts": [file.model_dump(mode="json") for file in artifacts],
    }


def finite(value: float | None) -> float | None:
    """`value`, or None where JSON has no word for it."""
    return value if value is not None and math.isfinite(value) else None


def stacked(read: Sequence[Sequence[FloatArray]]) -> list[FloatArray]:
    """What models gave to each text, (models, T) each, out of each model's (T,)."""
    return [np.stack(of_text) for of_text in zip(*read, strict=True)]
