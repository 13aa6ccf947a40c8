"""A fixed mixture of a forest's ELMs as its job stores it: who speaks, and how much each weighs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

FOREST_MIXTURE = "forest_mixture.json"
_VERSION = 1


@dataclass(frozen=True)
class Voice:
    """One model of a mixture.

    Attributes:
        name: of the ELM in its forest; `seed` for the forest's seed.
        content_hash: of its checkpoint, which is not copied.
        weight: its share, above 0.
    """

    name: str
    content_hash: str
    weight: float


@dataclass(frozen=True)
class StoredMixture:
    """Everything that answering with a finished mixture takes, but for the checkpoints.

    Attributes:
        forest: the name that it had.
        voices: those that speak; their weights sum to 1.
    """

    forest: str
    voices: tuple[Voice, ...]

    def write(self, folder: Path) -> None:
        """Into a file of its own; the same mixture, the same bytes.

        Raises:
            OSError: the disk is full or refuses.
        """
        text = json.dumps({"version": _VERSION, **asdict(self)}, indent=2, allow_nan=False) + "\n"
        (folder / FOREST_MIXTURE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `write` wrote.

        Raises:
            OSError: it is not there.
            ValueError, KeyError, TypeError: it is not what `write` wrote.
        """
        stored = json.loads((folder / FOREST_MIXTURE).read_text(encoding="utf-8"))
        if stored["version"] != _VERSION:
            raise ValueError(f"version {stored['version']!r} of {FOREST_MIXTURE} is unknown")
        return cls(stored["forest"], tuple(Voice(**voice) for voice in stored["voices"]))
