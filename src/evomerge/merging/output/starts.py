"""Candidates worth scoring before any search: they cost nothing, as all answers are there."""

from __future__ import annotations

import numpy as np

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.fusion import Fusion
from evomerge.optimizers.candidate import Candidate, one_hot, uniform


def starts(
    fusion: Fusion, metric: str, options: float | None = None, weights: FloatArray | None = None
) -> list[Candidate]:
    """Each expert alone, in their order; the uniform average; votes weighted by accuracy.

    With q_i the mean score of expert i alone, votes are

        beta_i proportional to log((K - 1) q_i / (1 - q_i))

    for questions with K options (the best weights of independent voters who are right with
    probability q_i and err evenly): negative for an expert below chance. Without options, where
    no score is chance, beta_i is proportional to q_i; for cross_entropy on text, to exp(-loss_i).
    |beta| sums to 1. There are no votes where that would leave no weight, or none above 0.

    Args:
        fusion: of the search examples.
        metric: what the search minimises.
        options: K, the mean number of options of choice rows; None for other rows.
        weights: (n,), how much each example counts; those of the fusion unless given.
    """
    experts = fusion.experts
    alone = [one_hot(i, experts) for i in range(experts)]
    eye = np.eye(experts)
    w = fusion.weights() if weights is None else weights
    scored_by = "choice_accuracy" if options is not None else metric
    loss = fusion.losses(np.ones_like(eye), eye, scored_by) @ w / w.sum()
    if options is not None:
        # As if half a question more had gone either way, so that no weight is infinite.
        right = (fusion.examples * (1 - loss) + 0.5) / (fusion.examples + 1)
        votes = np.log(max(options - 1, 1e-9) * right / (1 - right))
    elif metric == "cross_entropy":
        votes = np.exp(loss.min() - loss)
    else:
        votes = 1 - loss
    found = [*alone, uniform(experts)]
    if votes.max() > 1e-12:
        found.append(Candidate(np.ones((1, experts)), (votes / np.abs(votes).sum())[None]))
    return found
