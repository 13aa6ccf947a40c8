"""An output merge as its job stores it: the experts, how they are asked, and how they are fused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from evomerge.app.schemas.api_experts import ApiDefinition
from evomerge.connectors.expert import ApiExpert, Capabilities
from evomerge.connectors.output.task import Task
from evomerge.merging.output.merge import OutputMerge

OUTPUT_MERGE = "output_merge.json"


@dataclass(frozen=True)
class KnownExpert:
    """An API expert as a job was created with it.

    Attributes:
        definition: how it is called; names a credential and holds none.
        capabilities: what its last probe had found.
    """

    name: str
    definition: ApiDefinition
    capabilities: Capabilities

    @property
    def expert(self) -> ApiExpert:
        """As the connectors know it."""
        return self.definition.expert(self.name, self.capabilities)

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        return {
            "name": self.name,
            "definition": self.definition.model_dump(mode="json"),
            "capabilities": self.capabilities.to_json(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `to_json` gave, read back."""
        return cls(
            stored["name"],
            ApiDefinition.model_validate(stored["definition"]),
            Capabilities.from_json(stored["capabilities"]),
        )


@dataclass(frozen=True)
class StoredOutput:
    """Everything that answering with a finished output merge takes."""

    merge: OutputMerge
    task: Task
    experts: tuple[KnownExpert, ...]

    def write(self, folder: Path) -> None:
        """Into a file of its own; the same merge, the same bytes.

        Raises:
            OSError: the disk is full or refuses.
        """
        stored = {
            "merge": self.merge.to_json(),
            "task": self.task.to_json(),
            "experts": [expert.to_json() for expert in self.experts],
        }
        text = json.dumps(stored, indent=2, allow_nan=False) + "\n"
        (folder / OUTPUT_MERGE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `write` wrote.

        Raises:
            OSError: it is not there.
            ValueError: it is not what `write` wrote.
        """
        stored = json.loads((folder / OUTPUT_MERGE).read_text(encoding="utf-8"))
        return cls(
            OutputMerge.from_json(stored["merge"]),
            Task.from_json(stored["task"]),
            tuple(map(KnownExpert.from_json, stored["experts"])),
        )
