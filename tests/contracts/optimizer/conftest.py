"""Every optimizer, by its own name: what the contract is run over."""

from __future__ import annotations

import pytest
from tests.support.searches import (
    FACTORIES,
    SEARCHES,
    Factory,
)

SHAPES = [(1, 1), (2, 1), (5, 3), (300, 1)]


@pytest.fixture(params=sorted(FACTORIES))
def make(request: pytest.FixtureRequest) -> Factory:
    return FACTORIES[request.param]


@pytest.fixture(params=sorted(SEARCHES))
def search(request: pytest.FixtureRequest) -> Factory:
    """One that draws, group by group and generation by generation."""
    return SEARCHES[request.param]


@pytest.fixture(params=SHAPES, ids=lambda shape: f"N{shape[0]}-G{shape[1]}")
def shape(request: pytest.FixtureRequest) -> tuple[int, int]:
    experts, groups = request.param
    return experts, groups
