"""Candidates as arrays, held to the pool that they are for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evomerge.merging.errors import CandidateError
from evomerge.optimizers.candidate import Candidate, FloatArray


def stacked(
    candidates: Sequence[Candidate], groups: int, experts: int
) -> tuple[FloatArray, FloatArray]:
    """alpha and beta of all candidates, (P, groups, experts) each.

    Raises:
        CandidateError: no candidate, a shape that does not fit the pool, or a value that is not
            finite or outside of alpha's range.
    """
    if not candidates:
        raise CandidateError("population", "is empty")
    expected = (groups, experts)
    for candidate in candidates:
        for field, values in (("alpha", candidate.alpha), ("beta", candidate.beta)):
            if values.shape != expected:
                raise CandidateError(
                    field, f"of shape {values.shape}; the pool has (groups, experts) {expected}"
                )
    alpha = np.stack([candidate.alpha for candidate in candidates])
    beta = np.stack([candidate.beta for candidate in candidates])
    if not ((alpha >= 0.0) & (alpha <= 1.0)).all():
        raise CandidateError("alpha", "has values outside of [0, 1]")
    if not np.isfinite(beta).all():
        raise CandidateError("beta", "has values that are not finite")
    return alpha, beta
