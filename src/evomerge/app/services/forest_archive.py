"""A whole forest as one archive, which holds all that makes it again elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evomerge.app.db.models import Forest as ForestRow
from evomerge.app.db.models import ForestElm as ElmRow
from evomerge.app.db.repositories import forests
from evomerge.app.ensembles import Ensemble
from evomerge.app.errors import ConflictError
from evomerge.app.routing import ROUTER, router_folder
from evomerge.app.services.archives import Entry, zipped
from evomerge.app.services.checkpoints import checkpoint_files
from evomerge.app.services.context import Context
from evomerge.app.services.references import known
from evomerge.merging.checkpoint.errors import CheckpointError

MANIFEST = "forest.json"
SEED_FOLDER = "seed"
FORMAT = 1


async def archive(context: Context, key: str) -> tuple[str, Iterator[bytes]]:
    """The forest's name, and its archive piece by piece; never whole in memory.

    Raises:
        NotFoundError: no such forest.
        ConflictError: the files of one of its models have gone.
    """
    async with context.database.read() as session:
        row = await known(session, ForestRow, key)
        members = await forests.elms(session, row.id)
    entries = await asyncio.to_thread(_entries, context.settings.data_dir, row, members)
    return row.name, zipped(entries)


def manifest(row: ForestRow, members: Sequence[ElmRow]) -> dict[str, Any]:
    """What forest.json says. The seed as an ELM has no folder of its own."""
    ensemble = Ensemble.of(row.ensemble)
    return {
        "format": FORMAT,
        "name": row.name,
        "seed": {
            "folder": SEED_FOLDER,
            "content_hash": row.seed_hash,
            "lineage": row.seed_lineage,
        },
        "vocabulary_hash": row.vocabulary_hash,
        "architecture": row.architecture,
        "ensemble": ensemble.settings(),
        "router": ensemble.stored()["router"],
        "elms": [
            {
                "name": elm.name,
                "domain": elm.domain,
                "folder": _folder(row, elm),
                "content_hash": elm.content_hash,
                "lineage": elm.lineage,
                "tokens": elm.tokens,
                "own_tokens": elm.own_tokens,
            }
            for elm in members
        ],
        "metadata": row.meta,
    }


def _entries(data_dir: Path, row: ForestRow, members: Sequence[ElmRow]) -> list[Entry]:
    text = json.dumps(manifest(row, members), indent=2, allow_nan=False) + "\n"
    folders = {SEED_FOLDER: row.seed_path}
    folders |= {_folder(row, elm): elm.path for elm in members if elm.content_hash != row.seed_hash}
    entries: list[Entry] = [(MANIFEST, text.encode())]
    for folder, path in folders.items():
        try:
            files = checkpoint_files(Path(path))
        except (CheckpointError, OSError) as error:
            raise ConflictError(
                f"forest {row.name!r}: the files of {folder!r} have gone", code="files_gone"
            ) from error
        entries += [(f"{folder}/{file.name}", file) for file in files]
    if (router := Ensemble.of(row.ensemble).router) is not None:
        files = sorted(router_folder(data_dir, router).glob("*"))
        entries += [(f"{ROUTER}/{file.name}", file) for file in files]
    return entries


def _folder(row: ForestRow, elm: ElmRow) -> str:
    return SEED_FOLDER if elm.content_hash == row.seed_hash else f"elms/{elm.name}"
