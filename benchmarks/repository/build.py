"""Build a repository: tasks, base, experts, record; a build that was ended goes on.

Each part is there whole or not at all, and made only where it is missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.btm.workers import pool
from benchmarks.repository.base import write_base
from benchmarks.repository.experts import Trained, make_expert, read_record
from benchmarks.repository.open import RECORD
from benchmarks.repository.settings import Settings, versions
from benchmarks.repository.tasks import SPLITS, Split, Task, names, relatives, rows_of

from evomerge.evaluation.example import Example
from evomerge.merging.storing import written_whole

Say = Callable[[str], None]


class BuildError(Exception):
    """The repository cannot be what it should be; the message says why."""


def build(settings: Settings, folder: Path, processes: int, say: Say) -> list[Trained]:
    """Make whatever is missing of a repository; its experts, in order of their names.

    Raises:
        BuildError: other rows were written by an earlier build, a member of a setting is not
            better than the base, or too few experts are.
        ArtifactWriteError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tasks(settings, folder / "tasks")
    base = folder / "base"
    with pool(processes) as executor:
        if not base.is_dir():
            begun = time.monotonic()
            with written_whole(base) as fresh:
                write_base(settings, fresh, say)
            say(f"base: {time.monotonic() - begun:.0f} s")
        tasks = [Task.of(name) for name in settings.experts]
        missing = [task for task in tasks if not (folder / "experts" / task.name).is_dir()]
        say(f"{len(missing)} of {len(settings.experts)} experts to train")
        running = [executor.submit(_expert, settings, folder, task) for task in missing]
        for count, done in enumerate(as_completed(running), start=1):
            say(f"{count}/{len(missing)} {done.result()}")
    trained = [read_record(folder / "experts" / task.name) for task in sorted(tasks)]
    write_record(settings, folder, trained)
    return trained


def write_tasks(settings: Settings, folder: Path) -> None:
    """Write every expert's task, a file each; or see that they are what is written.

    Raises:
        BuildError: an earlier build wrote other rows.
    """
    files = {f"{name}.jsonl": "".join(_lines(rows_of(Task.of(name)))) for name in settings.experts}
    if not folder.is_dir():
        with written_whole(folder) as fresh:
            for name, content in files.items():
                (fresh / name).write_text(content, encoding="utf-8")
        return
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            raise BuildError(f"{path} has other rows than are made now; remove {folder.parent}")


def read_task(file: Path) -> dict[str, list[Example]]:
    """The rows of each split."""
    rows: dict[str, list[Example]] = {split: [] for split in SPLITS}
    with file.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            rows[row["split"]].append(Example(row["prompt"], row["completion"]))
    return rows


def write_record(settings: Settings, folder: Path, trained: Iterable[Trained]) -> None:
    """Write repository.json, last of all.

    Raises:
        BuildError: a member of a setting is not better than the base, or too few experts are.
    """
    results = {each.task: each for each in trained}
    good = [name for name, each in results.items() if each.better]
    if lost := sorted(set(settings.members.everyone) - set(good)):
        raise BuildError(f"not better than the base, and needed: {', '.join(lost)}")
    left = len(set(good) - set(settings.members.targets))
    if left < settings.least:
        raise BuildError(f"{left} experts are better than the base; {settings.least} are needed")
    record = {
        "settings": asdict(settings),
        "versions": versions(),
        "members": asdict(settings.members),
        "experts": good,
        "dropped": [name for name in results if name not in good],
        "tasks": {name: _described(each, good) for name, each in results.items()},
    }
    fresh = folder / f".{RECORD}"
    fresh.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    fresh.rename(folder / RECORD)


def _described(trained: Trained, experts: list[str]) -> dict[str, Any]:
    own = relatives(Task.of(trained.task), map(Task.of, experts))
    return {
        "rows": trained.rows,
        "base_loss": trained.base_loss,
        "expert_loss": trained.expert_loss,
        "p_value": trained.p_value,
        "relatives": names(own),
    }


def _lines(rows: dict[Split, list[Example]]) -> Iterable[str]:
    for split in SPLITS:
        for row in rows[split]:
            content = {"prompt": row.prompt, "completion": row.completion, "split": split}
            yield json.dumps(content, ensure_ascii=False) + "\n"


def _expert(settings: Settings, folder: Path, task: Task) -> Trained:
    rows = read_task(folder / "tasks" / f"{task.name}.jsonl")
    return make_expert(task, rows, settings, folder / "base", folder / "experts" / task.name)
