"""Feature 19: uniform, argmax, posterior and custom averages; one-hot returns that ELM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.elms import make_elm, tensors_of
from tests.support.tiny import make_base

from evomerge.merging.checkpoint.average import average
from evomerge.merging.forest.averages import AverageKind, average_weights

POSTERIOR = (0.2, 0.5, 0.3)
CUSTOM = (0.0, 0.25, 0.75)


@pytest.fixture(scope="module")
def elms(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("forest")
    seed = make_base(folder / "seed")
    return [make_elm(folder / f"elm{number}", seed, number) for number in range(3)]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("uniform", (1 / 3, 1 / 3, 1 / 3)),
        ("argmax", (0.0, 1.0, 0.0)),
        ("posterior", POSTERIOR),
        ("custom", CUSTOM),
    ],
)
def test_an_average_of_each_kind(
    elms: list[Path], tmp_path: Path, kind: AverageKind, expected: tuple[float, ...]
) -> None:
    weights = average_weights(kind, 3, posterior=POSTERIOR, custom=CUSTOM)
    np.testing.assert_allclose(weights, expected)
    average(elms, weights, tmp_path / "average")
    members = [tensors_of(elm) for elm in elms]
    for name, value in tensors_of(tmp_path / "average").items():
        by_hand = sum(w * own[name].double() for w, own in zip(expected, members, strict=True))
        torch.testing.assert_close(value.double(), by_hand, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("elm", range(3))
def test_a_one_hot_average_is_that_elm_byte_for_byte(
    elms: list[Path], tmp_path: Path, elm: int
) -> None:
    average(elms, average_weights("custom", 3, custom=np.eye(3)[elm]), tmp_path / "average")
    own, found = tensors_of(elms[elm]), tensors_of(tmp_path / "average")
    assert own.keys() == found.keys()
    for name, value in found.items():
        assert value.numpy().tobytes() == own[name].numpy().tobytes()
