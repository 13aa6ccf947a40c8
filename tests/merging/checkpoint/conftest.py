"""A tiny seed and ELMs that come from it, on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.elms import make_elm
from tests.support.tiny import make_base


@pytest.fixture(scope="session")
def seed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("forest") / "seed")


@pytest.fixture(scope="session")
def elms(seed: Path) -> list[Path]:
    """Three, of domains of their own."""
    domains = ("law", "verse", "code")
    return [
        make_elm(seed.parent / domain, seed, number + 1, domain=domain)
        for number, domain in enumerate(domains)
    ]
