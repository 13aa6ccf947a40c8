"""Where a run computes, with and without CUDA devices."""

from __future__ import annotations

import pytest
import torch

from evomerge.connectors.local.training.errors import PlacementError
from evomerge.connectors.local.training.placement import Placement, place


@pytest.fixture
def devices(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many CUDA devices as the test says: torch's answer is all that a placement asks for."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)


PLACED = [
    (0, "auto", None, 8, Placement("cpu", 1)),
    (0, "auto", 3, 8, Placement("cpu", 3)),
    (4, "auto", None, 8, Placement("cuda:0", 4)),
    (4, "balanced", None, 8, Placement("cuda:0", 4)),
    (4, "auto", None, 2, Placement("cuda:0", 2)),
    (4, "auto", 1, 8, Placement("cuda:0", 1)),
    (4, "cuda", None, 8, Placement("cuda", 1)),
    (4, "cuda:3", None, 8, Placement("cuda:3", 1)),
    (4, "cpu", 2, 8, Placement("cpu", 2)),
]


@pytest.mark.parametrize(
    ("devices", "device", "processes", "rows", "placed"), PLACED, indirect=["devices"]
)
@pytest.mark.usefixtures("devices")
def test_places(device: str, processes: int | None, rows: int, placed: Placement) -> None:
    assert place(device, processes, rows) == placed


REFUSED = [
    (4, "auto", 5, 8, "processes=5: device='auto' gives 4 here"),
    (4, "cuda:1", 2, 8, "processes=2: device='cuda:1' gives 1 here"),
    (4, "cuda:4", None, 8, "device='cuda:4': there are 4 CUDA devices here"),
    (0, "cuda", None, 8, "device='cuda': there are 0 CUDA devices here"),
    (0, "banana", None, 8, "device='banana': is the name of no device"),
    (0, "cpu", 3, 2, "processes=3: a batch has 2 rows"),
    (0, "cpu", 0, 2, "processes=0: must be at least 1"),
]


@pytest.mark.parametrize(
    ("devices", "device", "processes", "rows", "said"), REFUSED, indirect=["devices"]
)
@pytest.mark.usefixtures("devices")
def test_refuses(device: str, processes: int | None, rows: int, said: str) -> None:
    with pytest.raises(PlacementError, match=said):
        place(device, processes, rows)
