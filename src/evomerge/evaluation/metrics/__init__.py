"""How good an answer is: scores from 0 to 1, by name."""

from evomerge.evaluation.metrics.registry import (
    CROSS_ENTROPY,
    SCORES,
    Score,
    check_metric,
    metric_losses,
    score_of,
)

__all__ = ["CROSS_ENTROPY", "SCORES", "Score", "check_metric", "metric_losses", "score_of"]
