"""Environments of peers; nothing is fetched, for nothing is asked for that is not there."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from benchmarks.peers.environments import Environment, EnvironmentFailedError, ensure


def test_an_environment_sees_the_packages_of_the_running_one(tmp_path: Path) -> None:
    python = ensure(Environment("peer", ("numpy",)), tmp_path)
    told = subprocess.run(
        [python, "-c", "import numpy, sys; print(sys.prefix); print(numpy.__file__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert Path(told[0]).is_relative_to(tmp_path)
    assert not Path(told[1]).is_relative_to(tmp_path)


def test_a_finished_environment_is_used_again_and_another_one_is_not(tmp_path: Path) -> None:
    said: list[str] = []
    first = ensure(Environment("peer"), tmp_path, said.append)
    assert ensure(Environment("peer"), tmp_path, said.append) == first
    assert len(said) == 1
    assert Environment("peer", ("numpy",)).folder(tmp_path) != first.parent.parent


def test_what_pip_refuses_is_told_and_not_taken_for_finished(tmp_path: Path) -> None:
    broken = Environment("broken", ("not a requirement!",))
    with pytest.raises(EnvironmentFailedError, match="not a requirement"):
        ensure(broken, tmp_path)
    assert not (broken.folder(tmp_path) / "finished").exists()
