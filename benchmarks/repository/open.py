"""A built repository, for those that merge its experts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.repository.members import Members

from evomerge.evaluation.example import Example

RECORD = "repository.json"


class NotBuiltError(Exception):
    """There is no whole repository in a folder; the message says how to make one."""

    def __init__(self, folder: Path, quick: bool) -> None:
        command = f"python -m benchmarks.repository{' --quick' if quick else ''}"
        super().__init__(f"{folder} holds no finished repository; make it with: {command}")


@dataclass(frozen=True)
class Repository:
    """A base, its experts, and their tasks.

    Attributes:
        folder: where it is.
        base: folder of the base model.
        experts: folder of each adapter, by the name of its task; the targets' own among them.
        tasks: file with the rows of each task.
        members: who takes part in each setting.
    """

    folder: Path
    base: Path
    experts: Mapping[str, Path]
    tasks: Mapping[str, Path]
    members: Members

    @property
    def pool(self) -> dict[str, Path]:
        """The experts that out-of-domain targets may use: of no target."""
        targets = set(self.members.targets)
        return {name: path for name, path in self.experts.items() if name not in targets}

    @cached_property
    def record(self) -> dict[str, Any]:
        """repository.json: seeds, versions, and of each task its rows, losses and relatives."""
        content: dict[str, Any] = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        return content

    def rows(self, task: str, split: str) -> list[Example]:
        """The rows of a task that are `train`, `search` or `held_out`.

        Raises:
            KeyError: there is no such task, or no such split of it.
        """
        with self.tasks[task].open(encoding="utf-8") as lines:
            rows = [
                Example(row["prompt"], row["completion"], row=number)
                for number, row in enumerate(map(json.loads, lines), start=1)
                if row["split"] == split
            ]
        if not rows:
            raise KeyError(f"{task}: no split {split!r}")
        return rows


def open_repository(folder: Path | None = None, quick: bool = False) -> Repository:
    """A repository that `python -m benchmarks.repository` has made.

    Args:
        folder: of one repository; by default where that command puts it.
        quick: the one of `--quick`.

    Raises:
        NotBuiltError: it is not there, or not finished.
        PackageNotFoundError: a package that names the default folder is missing.
    """
    if folder is None:
        from benchmarks.repository.settings import (
            default_home,
            folder_of,
            full_settings,
            quick_settings,
        )

        folder = folder_of(quick_settings() if quick else full_settings(), default_home())
    if not (folder / RECORD).is_file():
        raise NotBuiltError(folder, quick)
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    return Repository(
        folder=folder,
        base=folder / "base",
        experts={name: folder / "experts" / name for name in record["experts"]},
        tasks={name: folder / "tasks" / f"{name}.jsonl" for name in record["tasks"]},
        members=Members(**{key: tuple(names) for key, names in record["members"].items()}),
    )
