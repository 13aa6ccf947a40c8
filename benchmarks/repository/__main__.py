"""Make the repository of experts on which merging methods are compared.

    python -m benchmarks.repository [--quick] [--processes 2] [--home FOLDER]

Trains a small base from scratch and a LoRA expert for each of a hundred and more tasks, one thread
a process, and holds every expert against the base on rows that neither was trained on. It is kept
below ~/.cache/evomerge/repository; a run that was ended goes on, and a finished one is read. The
same machine makes the same bytes. Needs `.[local,recipe]`. --quick makes a dozen, to develop on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from benchmarks.repository.build import BuildError, build
from benchmarks.repository.experts import Trained
from benchmarks.repository.settings import (
    default_home,
    folder_of,
    full_settings,
    quick_settings,
)
from benchmarks.repository.tasks import Task
from transformers.utils import logging


def main() -> int:
    """Build it and print what it holds."""
    args = _arguments()
    settings = quick_settings() if args.quick else full_settings()
    folder = folder_of(settings, args.home)
    logging.disable_progress_bar()
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begun:6.0f} s] {line}", flush=True)

    try:
        trained = build(settings, folder, args.processes, say)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for line in table(trained):
        print(line)
    say(f"{sum(each.better for each in trained)} experts in {folder}")
    return 0


def table(trained: Iterable[Trained]) -> list[str]:
    """A Markdown table: of each kind its experts and their mean losses, and who was dropped."""
    kinds: dict[str, list[Trained]] = defaultdict(list)
    for each in trained:
        kinds[Task.of(each.task).kind].append(each)
    lines = [
        "| kind | experts | base, held out | own expert, held out | dropped |",
        "|---|---|---|---|---|",
    ]
    for kind, members in sorted(kinds.items()):
        base = sum(each.base_loss for each in members) / len(members)
        expert = sum(each.expert_loss for each in members) / len(members)
        dropped = ", ".join(each.task for each in members if not each.better)
        good = sum(each.better for each in members)
        lines.append(f"| {kind} | {good} | {base:.3f} | {expert:.3f} | {dropped} |")
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a dozen experts, to develop on")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--home", type=Path, default=default_home(), help="of all repositories")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
