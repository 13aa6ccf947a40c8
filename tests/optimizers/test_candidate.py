"""Candidates."""

from __future__ import annotations

import numpy as np
import pytest

from evomerge.optimizers import Candidate
from evomerge.optimizers.candidate import base, one_hot, uniform


def test_the_named_candidates() -> None:
    assert base(3).beta.tolist() == [[0.0, 0.0, 0.0]]
    assert one_hot(1, 3, groups=2).beta.tolist() == [[0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]
    assert uniform(4).beta.tolist() == [[0.25, 0.25, 0.25, 0.25]]
    for candidate in (base(3, 2), one_hot(0, 3, 2), uniform(3, 2)):
        assert (candidate.groups, candidate.experts) == (2, 3)
        assert (candidate.alpha == 1).all()


@pytest.mark.parametrize(("by", "same"), [(0.0, True), (1e-13, True), (1e-6, False)])
def test_agreement_is_up_to_rounding(by: float, same: bool) -> None:
    one = uniform(3)
    assert one.agrees(Candidate(one.alpha, one.beta + by)) is same
    assert one.agrees(Candidate(one.alpha - by, one.beta)) is same


def test_shapes_must_agree() -> None:
    assert not uniform(1).agrees(Candidate(np.ones((2, 1)), np.ones((2, 1))))
