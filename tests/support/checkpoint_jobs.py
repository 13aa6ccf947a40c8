"""A job over the weights of a tiny forest: seed, ELMs and a dataset in one folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.elms import make_elm
from tests.support.jobs import write_dataset
from tests.support.lora_jobs import SPEC, TinyPool, examples
from tests.support.tiny import make_base

from evomerge.app.schemas.inputs import ExpertInput, JobInputs, SeedInput
from evomerge.merging.checkpoint.files import content_hash

FOREST_SPEC: dict[str, Any] = {**SPEC, "pool": "grove", "space": "checkpoint"}


def make_tiny_forest(folder: Path, elms: int = 4) -> TinyPool:
    """Write a seed, ELMs that come from it and a dataset."""
    seed = make_base(folder / "seed")
    members = []
    for number in range(elms):
        path = make_elm(folder / f"elm-{number}", seed, number + 1, domain=f"d{number}")
        members.append(
            ExpertInput(
                id=f"elm_{number}",
                name=path.name,
                kind="elm",
                path=path,
                content_hash=content_hash(path),
            )
        )
    return TinyPool(
        folder,
        JobInputs(
            seed=SeedInput(forest="grove", path=seed, content_hash=content_hash(seed)),
            pool_id="forest_grove",
            experts=members,
            datasets=[write_dataset(folder, examples())],
        ),
    )
