"""What joins a forest when a training succeeds, in the transaction that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.errors import NameTakenError
from evomerge.app.db.models import Forest, Pool
from evomerge.app.db.repositories import forests, names, references
from evomerge.app.db.repositories.forests import NewElm, NewForest
from evomerge.app.ensembles import Ensemble, StoredRouter
from evomerge.app.errors import ConflictError
from evomerge.app.schemas.forest_inputs import ForestInput
from evomerge.app.services.checkpoints import Seed
from evomerge.app.services.storage import check_stored
from evomerge.app.worker.errors import JobError
from evomerge.app.worker.ledger import Also
from evomerge.merging.checkpoint.lineage import Lineage


def elm_joins(forest: ForestInput, new: NewElm) -> Also:
    """The ELM that was trained becomes one of its forest.

    Raises, when it is called:
        JobError: the forest has gone, or another ELM has taken the name.
    """

    async def join(session: AsyncSession) -> Mapping[str, Any]:
        await _hold(session, new.path)
        row = await forests.lock(session, forest.id)
        if row is None:
            raise JobError(
                "forest_gone",
                f"forest {forest.name!r} was deleted meanwhile: the ELM has none to join",
                "forest",
            )
        try:
            elm = await forests.add_elm(session, row, new)
        except NameTakenError as error:
            raise JobError(
                "name_taken",
                f"elm={new.name!r}: the forest has another ELM of this name by now; take that one "
                "out and resume the job, which has trained all it needs",
                "elm",
            ) from error
        return {"forest_id": row.id, "elm_id": elm.id}

    return join


def forest_begins(name: str, seed: Seed, folder: Path, meta: Mapping[str, str]) -> Also:
    """The seed that was trained begins a forest, unless its name was taken meanwhile."""

    async def begin(session: AsyncSession) -> Mapping[str, Any]:
        await _hold(session, str(folder))
        await names.hold(session)
        if await names.owner(session, Pool, name) or await names.owner(session, Forest, name):
            return {}
        row = await forests.add(
            session,
            NewForest(
                name=name,
                seed_path=str(folder),
                seed_hash=seed.content_hash,
                seed_lineage=asdict(seed.lineage),
                vocabulary_hash=seed.vocabulary_hash,
                architecture=seed.architecture,
                ensemble=Ensemble(),
                meta=meta,
            ),
        )
        return {"forest_id": row.id}

    return begin


def router_joins(forest: ForestInput, router: StoredRouter) -> Also:
    """The router that was fitted becomes its forest's, in the place of any before.

    ELMs are weighed by the posterior again, since none was trained on the new clusters yet.

    Raises, when it is called:
        JobError: the forest has gone.
    """

    async def join(session: AsyncSession) -> Mapping[str, Any]:
        row = await forests.lock(session, forest.id)
        if row is None:
            raise JobError(
                "forest_gone",
                f"forest {forest.name!r} was deleted meanwhile: the router has none to join",
                "forest",
            )
        ensemble = replace(Ensemble.of(row.ensemble), router=router, weighting="posterior")
        await forests.set_ensemble(session, row.id, ensemble)
        return {"forest_id": row.id}

    return join


def kept(folder: Path) -> Also:
    """A checkpoint without a forest, which the result alone keeps."""

    async def keep(session: AsyncSession) -> Mapping[str, Any]:
        await _hold(session, str(folder))
        return {}

    return keep


def new_elm(
    name: str, domain: str, folder: Path, digest: str, lineage: Lineage, job_id: str
) -> NewElm:
    """The row to be of an ELM that was trained."""
    return NewElm(
        name=name,
        domain=domain,
        path=str(folder),
        content_hash=digest,
        lineage=asdict(lineage),
        tokens=lineage.tokens,
        own_tokens=lineage.own_tokens,
        job_id=job_id,
    )


async def _hold(session: AsyncSession, path: str) -> None:
    """Keep a stored folder from being swept before the row that names it is there.

    Raises:
        JobError: the same content was deleted since it was stored.
    """
    await references.hold(session)
    try:
        check_stored(path)
    except ConflictError as error:
        raise JobError(
            "checkpoint_gone", "what was trained was deleted meanwhile; resume the job"
        ) from error
