"""The scratch folder of a run: what it was begun with, and what of it is left of a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.connectors.local.training.errors import ChangedRunError
from evomerge.merging.storing import written_whole

_RECORD, _FILE = "run", "run.json"
_START = "start"


class Scratch:
    """The places of a run in its scratch folder.

    Attributes:
        folder: the scratch folder; made if it is not there.
        start: the first weights.
        checkpoints: see `Checkpoints`.
        tokens: token caches, unless they are shared elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start = folder / _START
        self.checkpoints = folder / "checkpoints"
        self.tokens = folder / "tokens"
        for place in (folder, self.checkpoints, self.tokens):
            place.mkdir(parents=True, exist_ok=True)
            _sweep(place, ".*")

    @staticmethod
    def begun(folder: Path) -> bool:
        """Whether a run in this folder has its first weights."""
        return (folder / _START).is_dir()

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Note what the run is begun with, or hold it to what it was begun with.

        Args:
            arguments: JSON values by name.

        Raises:
            ChangedRunError: a run with other arguments was begun here; names the first.
        """
        now = json.loads(json.dumps(dict(arguments)))
        record = self.folder / _RECORD
        if not record.is_dir():
            with written_whole(record) as fresh:
                (fresh / _FILE).write_text(json.dumps(now, indent=2), encoding="utf-8")
            return
        before = json.loads((record / _FILE).read_text(encoding="utf-8"))
        for field in sorted(before.keys() | now.keys()):
            if before.get(field) != now.get(field):
                raise ChangedRunError(self.folder, field, before.get(field), now.get(field))


def sweep_unfinished(folder: Path) -> None:
    """Remove what a killed run left beside a folder that it was writing as a whole."""
    if folder.parent.is_dir():
        _sweep(folder.parent, f".{folder.name}.*")


def _sweep(folder: Path, pattern: str) -> None:
    for leftover in folder.glob(pattern):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
