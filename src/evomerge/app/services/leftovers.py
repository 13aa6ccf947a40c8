"""Stored files that nothing refers to any more: what is left of deleted experts, datasets, ELMs.

Rows come and go in transactions, files do not. So a file is removed only while nobody can add a
reference to it, and after the last one is gone for good; what a crash leaves is swept later.
"""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

from sqlalchemy.exc import SQLAlchemyError

from evomerge.app.db.repositories import jobs, references
from evomerge.app.services.context import Context
from evomerge.app.services.storage import INCOMING, LOG_PROBS
from evomerge.app.worker import scratch

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 3600.0
# Younger files may be of an upload whose row is about to be written.
GRACE_SECONDS = 24 * 3600.0

_STORES = ("datasets", "experts", "elms", LOG_PROBS)
# An ELM's log-probabilities are kept by its content and precision.
_CONTENT = re.compile(r"([0-9a-f]{64})(\.jsonl|-\w+\.sqlite(-journal)?)?")
_TRASH = ".trash-"
# Jobs that nobody can resume.
_DONE = ("succeeded", "cancelled")


async def clear(context: Context, path: str | None) -> None:
    """Remove the file of a deleted row, unless something else refers to its content.

    Only what the service stored itself is ever removed. A failure is logged, not raised: the row
    is gone, and the file will be swept.
    """
    if path is None or Path(path).parent not in _stores(context):
        return
    read = context.settings.data_dir.absolute() / LOG_PROBS
    try:
        await _remove_unused(context, [Path(path), *read.glob(f"{_content(Path(path))}-*")])
    except (OSError, SQLAlchemyError) as error:
        logger.warning("a file that is no longer used stays for now: %s", error)


async def sweep(context: Context, now: float) -> None:
    """Remove every stored file that has been unused for long, and what crashes left half done.

    Args:
        now: seconds since 1970.

    Raises:
        OSError: the disk refuses.
        sqlalchemy.exc.SQLAlchemyError: the database is away.
    """
    old = await asyncio.to_thread(_old, _stores(context), now - GRACE_SECONDS)
    await asyncio.to_thread(_delete, [path for path in old if path.name.startswith(".")])
    contents = [path for path in old if _CONTENT.fullmatch(path.name)]
    if contents:
        await _remove_unused(context, contents)
    await _sweep_scratch(context, now - GRACE_SECONDS)


@asynccontextmanager
async def kept_swept(context: Context) -> AsyncIterator[None]:
    """Sweep now and every hour while the block runs."""
    sweeping = asyncio.create_task(_keep_swept(context))
    try:
        yield
    finally:
        sweeping.cancel()
        with suppress(asyncio.CancelledError):
            await sweeping


async def _keep_swept(context: Context) -> None:
    while True:
        try:
            await sweep(context, time.time())
        except (OSError, SQLAlchemyError) as error:
            logger.warning("files that are no longer used stay for now: %s", error)
        await asyncio.sleep(SWEEP_SECONDS)


async def _sweep_scratch(context: Context, before: float) -> None:
    """Remove what jobs kept for themselves that have ended, or failed long ago."""
    kept = await asyncio.to_thread(scratch.everything, context.settings.data_dir)
    async with context.database.read() as session:
        statuses = await jobs.statuses(session, [one.job_id for one in kept])
    for one in kept:
        status = statuses.get(one.job_id, "cancelled")
        if status in _DONE or (status == "failed" and one.changed_at < before):
            await asyncio.to_thread(scratch.discard, one)


async def _remove_unused(context: Context, paths: Sequence[Path]) -> None:
    async with context.database.write() as session:
        await references.hold(session, alone=True)
        used = await references.used(session, [_content(path) for path in paths])
        unused = [path for path in paths if _content(path) not in used]
        # One step each, so that nobody waits for a large folder to be deleted.
        aside = await asyncio.to_thread(lambda: list(_set_aside(unused)))
    await asyncio.to_thread(_delete, aside)


def _set_aside(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.exists():
            yield path.rename(path.with_name(f"{_TRASH}{uuid4().hex}"))


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _stores(context: Context) -> list[Path]:
    return [(context.settings.data_dir / name).absolute() for name in _STORES]


def _old(stores: Sequence[Path], before: float) -> list[Path]:
    """What was set aside already, and what was last changed before a time."""
    entries = [path for store in stores if store.is_dir() for path in store.iterdir()]
    return [
        path
        for path in entries
        if path.name.startswith(_TRASH) or (_is_ours(path) and path.stat().st_mtime < before)
    ]


def _is_ours(path: Path) -> bool:
    return path.name.startswith(INCOMING) or _CONTENT.fullmatch(path.name) is not None


def _content(path: Path) -> str:
    return re.split(r"[.-]", path.name, maxsplit=1)[0]
