"""Forests: expert language models of one seed, and how they speak together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Forest as ForestRow
from evomerge.app.db.models import ForestElm as ElmRow
from evomerge.app.db.models import Pool as PoolRow
from evomerge.app.db.repositories import forests, references
from evomerge.app.db.repositories.forests import NewElm, NewForest
from evomerge.app.db.repositories.lookup import find, newest
from evomerge.app.ensembles import Ensemble, StoredRouter
from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.base import Deleted
from evomerge.app.schemas.forests import Ensemble as EnsembleResource
from evomerge.app.schemas.forests import (
    Forest,
    ForestCreate,
    ForestMember,
    ForestPage,
    ForestRouter,
    ForestUpdate,
)
from evomerge.app.schemas.forests import Seed as SeedResource
from evomerge.app.services import leftovers
from evomerge.app.services.checkpoints import Seed
from evomerge.app.services.context import Context
from evomerge.app.services.forest_elms import check_room, locked, new_elm
from evomerge.app.services.forest_ensembles import changed
from evomerge.app.services.forest_seeds import find_seed
from evomerge.app.services.names import refuse_name_of
from evomerge.app.services.once import Answer, Make
from evomerge.app.services.references import known
from evomerge.app.services.storage import check_stored


@dataclass(frozen=True)
class NewParts:
    """What a new forest is made of, all of it read and checked."""

    seed: Seed
    elms: Sequence[NewElm]
    ensemble: Ensemble


async def check(context: Context, body: ForestCreate) -> NewParts:
    """The seed and the ELMs that a body asks for. Reads every byte of them.

    Raises:
        InvalidRequestError: one is refused, or the ensemble does not fit them; names the field.
        ConflictError: the job that was to make the seed has not succeeded.
    """
    check_room(len(body.elms), context.settings.max_pool_experts)
    seed = await find_seed(context, body.seed)
    elms: list[NewElm] = []
    for number, asked in enumerate(body.elms):
        new = await new_elm(context, seed, asked, f"elms.{number}.")
        if any(new.name == other.name for other in elms):
            param = f"elms.{number}.name"
            raise InvalidRequestError(f"{param}={new.name!r}: stands more than once", param=param)
        elms.append(new)
    names, corpora = [elm.name for elm in elms], [elm.lineage.get("corpus_hash") for elm in elms]
    return NewParts(seed, elms, changed(Ensemble(), body.ensemble, names, corpora))


def creation(body: ForestCreate, parts: NewParts) -> Make:
    """What makes the rows; the same seed and ELMs under the same name are the same forest."""

    async def make(session: AsyncSession) -> Answer:
        await references.hold(session)
        there = await find(session, ForestRow, body.name)
        if there is not None and there.name == body.name:
            members = await forests.elms(session, there.id)
            if not _is_same(there, members, parts):
                raise ConflictError(
                    f"name={body.name!r}: {there.id} has this name and another seed, other ELMs "
                    "or another ensemble",
                    param="name",
                    code="name_taken",
                )
            return _answer(200, there, members)
        await refuse_name_of(session, PoolRow, body.name)
        for path in (str(parts.seed.folder), *(elm.path for elm in parts.elms)):
            check_stored(path)
        row = await forests.add(session, _new_row(body, parts.seed))
        members = [await forests.add_elm(session, row, elm) for elm in parts.elms]
        await forests.set_ensemble(session, row.id, parts.ensemble)
        return _answer(201, row, members)

    return make


async def get(context: Context, key: str) -> Forest:
    """A forest by id or name.

    Raises:
        NotFoundError: there is none.
    """
    async with context.database.read() as session:
        row = await known(session, ForestRow, key)
        return resource(row, await forests.elms(session, row.id))


async def page(context: Context, after: str | None, limit: int) -> ForestPage:
    """Forests, newest first."""
    async with context.database.read() as session:
        rows, more = await newest(session, ForestRow, after=after, limit=limit)
        members = await forests.elms_of(session, [row.id for row in rows])
    return ForestPage(data=[resource(row, members[row.id]) for row in rows], has_more=more)


async def update(context: Context, key: str, body: ForestUpdate) -> Forest:
    """Change how a forest's ELMs speak together, or what a client has noted of it.

    Jobs that were created before keep what they were created with.

    Raises:
        NotFoundError: there is none.
        InvalidRequestError: the settings do not fit the ELMs that it has; names the field.
    """
    async with context.database.write() as session:
        row = await locked(session, (await known(session, ForestRow, key)).id)
        members = await forests.elms(session, row.id)
        if body.ensemble is not None:
            names = [elm.name for elm in members]
            corpora = [elm.lineage.get("corpus_hash") for elm in members]
            ensemble = changed(Ensemble.of(row.ensemble), body.ensemble, names, corpora)
            await forests.set_ensemble(session, row.id, ensemble)
        if body.metadata is not None:
            await forests.set_metadata(session, row.id, body.metadata)
        return resource(row, members)


async def delete(context: Context, key: str) -> Deleted:
    """Forget a forest. Files that the service stored go with the last that needs them.

    Raises:
        NotFoundError: there is none.
        ConflictError: a job that has not finished uses it.
    """
    async with context.database.write() as session:
        # Alone: a job that is being created over it is seen, or does not see it any more.
        await references.hold(session, alone=True)
        row = await known(session, ForestRow, key)
        if jobs := await forests.jobs_using(session, row.id):
            raise ConflictError(
                f"forest {row.name!r} is in use by {', '.join(jobs)}", code="in_use"
            )
        members = await forests.elms(session, row.id)
        await forests.remove(session, row.id)
    for path in {row.seed_path, *(elm.path for elm in members)}:
        await leftovers.clear(context, path)
    return Deleted(id=row.id, object="forest")


def resource(row: ForestRow, members: Sequence[ElmRow]) -> Forest:
    """A row and its ELMs as clients see them."""
    kept = Ensemble.of(row.ensemble)
    ensemble = EnsembleResource.model_validate(kept.settings())
    if (prior := ensemble.prior) is not None:
        # Postgres keeps no order of keys.
        ensemble.prior = {elm.name: prior[elm.name] for elm in members if elm.name in prior}
    return Forest(
        id=row.id,
        name=row.name,
        seed=SeedResource(content_hash=row.seed_hash, lineage=row.seed_lineage),
        vocabulary_hash=row.vocabulary_hash,
        architecture=row.architecture,
        ensemble=ensemble,
        router=None if kept.router is None else ForestRouter(**asdict(kept.router)),
        elms=[_member(elm, kept.router) for elm in members],
        metadata=row.meta,
        created_at=row.created_at,
    )


def _member(elm: ElmRow, router: StoredRouter | None) -> ForestMember:
    cluster = None if router is None else router.cluster_of(elm.lineage.get("corpus_hash"))
    return ForestMember(id=elm.id, name=elm.name, domain=elm.domain, cluster=cluster)


def _new_row(body: ForestCreate, seed: Seed) -> NewForest:
    return NewForest(
        name=body.name,
        seed_path=str(seed.folder),
        seed_hash=seed.content_hash,
        seed_lineage=asdict(seed.lineage),
        vocabulary_hash=seed.vocabulary_hash,
        architecture=seed.architecture,
        ensemble=Ensemble(),
        meta=body.metadata,
    )


def _is_same(there: ForestRow, members: Sequence[ElmRow], parts: NewParts) -> bool:
    had = [(elm.name, elm.domain, elm.content_hash) for elm in members]
    asked = [(elm.name, elm.domain, elm.content_hash) for elm in parts.elms]
    same_parts = there.seed_hash == parts.seed.content_hash and had == asked
    # A router is of a job over the forest, never of the request that makes it.
    return same_parts and replace(Ensemble.of(there.ensemble), router=None) == parts.ensemble


def _answer(status: int, row: ForestRow, members: Sequence[ElmRow]) -> Answer:
    return Answer(status, resource(row, members).model_dump(mode="json"), row.id)
