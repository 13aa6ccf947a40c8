"""A job over the tiny Llama: base, adapters, dataset and settings in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.jobs import write_dataset
from tests.support.tiny import make_adapter, make_base

from evomerge.app.schemas.inputs import ExpertInput, JobInputs
from evomerge.app.settings import Settings
from evomerge.evaluation import Example
from evomerge.merging.lora.adapter import read_adapter

WORDS = ("red", "green", "blue", "gold", "grey", "pink", "teal", "plum")
SPEC: dict[str, Any] = {
    "pool": "tiny",
    "objective": {
        "datasets": [{"dataset": "facts"}],
        "report": ["exact_match"],
        "max_new_tokens": 4,
    },
    "method": {
        "name": "evo-merging",
        "population": 6,
        "scaling": {"evaluations": 24, "start": "best_expert"},
        "denoising": {"evaluations": 12},
    },
}


@dataclass(frozen=True)
class TinyPool:
    """A folder with everything that a worker reads."""

    folder: Path
    inputs: JobInputs

    def settings(self, url: str, data_dir: Path, **more: Any) -> Settings:
        """Settings of a worker that finds the base."""
        return Settings(
            data_dir=data_dir,
            database_url=url,
            bases={"tiny": self.folder / "base"},
            device="cpu",
            threads=1,
            **{"batch_tokens": 512, **more},
        )

    def environment(self, settings: Settings) -> Mapping[str, str]:
        """The same settings for a worker process."""
        return {
            "EVOMERGE_DATA_DIR": str(settings.data_dir),
            "EVOMERGE_DATABASE_URL": settings.url,
            "EVOMERGE_BASES": f'{{"tiny": "{self.folder / "base"}"}}',
            "EVOMERGE_DEVICE": "cpu",
            "EVOMERGE_THREADS": "1",
            "EVOMERGE_BATCH_TOKENS": str(settings.batch_tokens),
            "EVOMERGE_LEASE_SECONDS": str(settings.lease_seconds),
            "EVOMERGE_BEAT_SECONDS": str(settings.beat_seconds),
            "EVOMERGE_POLL_SECONDS": str(settings.poll_seconds),
            "EVOMERGE_MAX_ATTEMPTS": str(settings.max_attempts),
        }


def examples() -> list[Example]:
    """Sixteen short rows."""
    return [Example(prompt=f"{n} is", completion=WORDS[n % 8]) for n in range(16)]


def make_tiny_pool(folder: Path, experts: int = 4) -> TinyPool:
    """Write a base, random adapters over it and a dataset."""
    base = make_base(folder / "base")
    members = []
    for number in range(experts):
        path = make_adapter(folder / f"expert-{number}", base, seed=number + 1)
        members.append(
            ExpertInput(
                id=f"ex_{number}",
                name=path.name,
                path=path,
                content_hash=read_adapter(path).content_hash,
            )
        )
    dataset = write_dataset(folder, examples())
    return TinyPool(folder, JobInputs(base="tiny", experts=members, datasets=[dataset]))
