"""Sessions: opened over a preset, scored by alpha and beta, and nothing else comes out."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from evomerge.app.db.engine import Database
from evomerge.app.db.models import SharedSession
from evomerge.app.db.repositories import sessions
from evomerge.app.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    QuotaError,
)
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.sessions import (
    CandidateBody,
    Evaluated,
    Materialized,
    PresetItem,
    PresetList,
    QueryPlus,
    Session,
    SessionCreate,
)
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services.context import Context
from evomerge.app.services.inspection import UninspectedError
from evomerge.app.services.merge_jobs import resolve
from evomerge.app.sessions.engine import Engine
from evomerge.app.sessions.presets import queried
from evomerge.app.sessions.rights import Rights
from evomerge.app.worker.errors import JobError
from evomerge.connectors.base import ConnectorError
from evomerge.evaluation import EvaluationError
from evomerge.merging.errors import MergingError
from evomerge.optimizers import Candidate

logger = logging.getLogger(__name__)

# A session's beta is bounded as the protocol's own search bounds it.
MOST_BETA = 1.5
# Of each caller's sessions the newest so many are kept.
KEPT = 100
_LOOKS = 4
_FOLDERS = "sessions"
_SHOWN = 16


@dataclass(frozen=True)
class Sessions:
    """The session protocol over one service.

    Attributes:
        context: of the service.
        presets: by id.
        engine: what scores.
    """

    context: Context
    presets: Mapping[str, MergeJobSpec]
    engine: Engine

    async def list_presets(self) -> PresetList:
        """Every preset; its base where its pool is registered."""
        items = []
        for name, spec in self.presets.items():
            try:
                async with self.context.database.read() as session:
                    inputs = await resolve(session, spec, self._most_experts)
                base = inputs.base
            except InvalidRequestError:
                base = None
            items.append(PresetItem(preset_id=name, path=name, base_model_name_or_path=base))
        return PresetList(items=items)

    async def create(self, rights: Rights, body: SessionCreate) -> Session:
        """Open a session: what it is over is fixed now.

        Raises:
            NotFoundError: there is no such preset.
            InvalidRequestError: the base or the query is not the preset's; names the field.
            ConflictError: the preset's inputs keep changing.
        """
        spec = self.presets.get(body.preset_id)
        if spec is None:
            raise NotFoundError("preset", body.preset_id, "preset_id")
        query = body.query_plus or QueryPlus()
        return _resource(await self.open(rights, body.preset_id, query, body.model_name_or_path))

    async def open(
        self, rights: Rights, preset: str, query: QueryPlus, base: str | None = None
    ) -> SharedSession:
        """A session's new row; raises as `create`."""
        spec = queried(self.presets[preset], query)
        inputs = await self._inputs(preset, spec)
        if base not in (None, inputs.base):
            raise InvalidRequestError(
                f"model_name_or_path: {base!r} is not the preset's base",
                param="model_name_or_path",
            )
        async with self.context.database.write() as session:
            return await sessions.add(
                session,
                caller=rights.caller,
                preset=preset,
                query=query.model_dump(mode="json"),
                spec=spec.model_dump(mode="json"),
                inputs=inputs.model_dump(mode="json"),
                keep=KEPT,
            )

    async def _inputs(self, preset: str, spec: MergeJobSpec) -> JobInputs:
        """What a preset means now; each of its evaluations checks the hashes again.

        Raises:
            ConflictError: it means nothing that can be scored; the log says why, the caller may
                not know.
        """
        inspection = self.context.inspection
        try:
            for _ in range(_LOOKS):
                async with self.context.database.read() as session:
                    found = await resolve(session, spec, self._most_experts)
                try:
                    return inspection.passed(spec, found)
                except UninspectedError as error:
                    await inspection.look(spec, error.inputs)
        except InvalidRequestError as error:
            logger.error("preset %r: %s", preset, error)
        raise ConflictError(
            f"preset {preset!r} cannot be used now; its holder's log says why",
            code="preset_unusable",
        )

    async def get(self, rights: Rights, session_id: str) -> Session:
        """A session of the caller's.

        Raises:
            NotFoundError: it has none of this id.
        """
        return _resource(await self.row(rights, session_id))

    async def row(self, rights: Rights, session_id: str) -> SharedSession:
        """A session's row; raises as `get`."""
        async with self.context.database.read() as session:
            row = await sessions.find(session, rights.caller, session_id)
        if row is None:
            raise NotFoundError("session", session_id)
        return row

    async def evaluate(self, rights: Rights, session_id: str, body: CandidateBody) -> Evaluated:
        """The loss of a candidate.

        Raises:
            NotFoundError, InvalidRequestError: no such session; alpha or beta do not fit it.
            QuotaError, OverloadedError: the key has used up its evaluations; too many wait.
            ConflictError: an input has changed since the session began.
        """
        row = await self.row(rights, session_id)
        spec, inputs = _parts(row)
        candidate = _candidate(body, len(inputs.experts))
        async with (
            _refusing(),
            self.engine.turn(row.id, spec, inputs) as ready,
            self.charged(rights, 1),
        ):
            evaluator = ready.bench.evaluator(spec.objective.metric)
            scores = await evaluator.score([candidate], ready.side.examples)
        loss = float(ready.side.objective.means(scores.losses, scores.weights)[0])
        return Evaluated(
            loss=loss if math.isfinite(loss) else None, adapter_dir=f"{row.id}/{_name(candidate)}"
        )

    async def materialize(
        self, rights: Rights, session_id: str, body: CandidateBody
    ) -> Materialized:
        """Write a candidate as an adapter on this machine.

        Raises:
            ForbiddenError: the key may not.
            NotFoundError, InvalidRequestError, QuotaError, OverloadedError, ConflictError: as
                `evaluate`.
            OSError: the disk refuses.
        """
        if not rights.materialize:
            raise ForbiddenError("this key may not materialize")
        row = await self.row(rights, session_id)
        spec, inputs = _parts(row)
        candidate = _candidate(body, len(inputs.experts))
        folder = self.folder(row.id) / _name(candidate)
        async with (
            _refusing(),
            self.engine.turn(row.id, spec, inputs) as ready,
            self.charged(rights, 1),
        ):
            stored = await asyncio.to_thread(ready.bench.merge, candidate)
            await asyncio.to_thread(stored.write, folder)
        return Materialized(adapter_dir=str(folder), session=_resource(row))

    def folder(self, session_id: str) -> Path:
        """Where a session's adapters are."""
        return (self.context.settings.data_dir / _FOLDERS / session_id).absolute()

    @asynccontextmanager
    async def charged(self, rights: Rights, count: int) -> AsyncIterator[None]:
        """Evaluations taken from the caller's quota; given back if the block fails.

        Raises:
            QuotaError: there are not so many left.
        """
        database: Database = self.context.database
        async with database.write() as session:
            if not await sessions.take(session, rights.caller, count, rights.evaluations):
                used = await sessions.used(session, rights.caller)
                raise QuotaError(
                    f"this key has used {used} of {rights.evaluations} evaluations, and {count} "
                    "more are wanted"
                )
        try:
            yield
        except BaseException:
            async with database.write() as session:
                await sessions.give_back(session, rights.caller, count)
            raise

    @property
    def _most_experts(self) -> int:
        return self.context.settings.max_pool_experts


def _resource(row: SharedSession) -> Session:
    inputs = JobInputs.model_validate(row.inputs)
    return Session(
        session_id=row.id,
        preset_id=row.preset,
        workdir=row.id,
        model_name_or_path=inputs.base_name,
        query_plus=QueryPlus.model_validate(row.query),
        adapter_count=len(inputs.experts),
    )


def _parts(row: SharedSession) -> tuple[MergeJobSpec, JobInputs]:
    return MergeJobSpec.model_validate(row.spec), JobInputs.model_validate(row.inputs)


def _candidate(body: CandidateBody, experts: int) -> Candidate:
    """The candidate of a body.

    Raises:
        InvalidRequestError: a length or a value is wrong; names the field.
    """
    limits = {"alpha": (body.alpha, 0.0, 1.0), "beta": (body.beta, -MOST_BETA, MOST_BETA)}
    for name, (values, low, high) in limits.items():
        if len(values) != experts:
            raise InvalidRequestError(
                f"{name}: {len(values)} values, the session has {experts} adapters", param=name
            )
        for place, value in enumerate(values):
            if not low <= value <= high:
                where = f"{name}.{place}"
                raise InvalidRequestError(
                    f"{where}: must lie in [{low:g}, {high:g}], got {value:g}", param=where
                )
    return Candidate(np.array([body.alpha], np.float64), np.array([body.beta], np.float64))


def _name(candidate: Candidate) -> str:
    """A candidate's name, by what it is."""
    return sha256(candidate.alpha.tobytes() + candidate.beta.tobytes()).hexdigest()[:_SHOWN]


@asynccontextmanager
async def _refusing() -> AsyncIterator[None]:
    """Say of inputs that cannot be used what a caller may know: no path, no row.

    Raises:
        ConflictError: they cannot.
    """
    try:
        yield
    except (JobError, ConnectorError, MergingError, EvaluationError) as error:
        logger.error("a session cannot be scored: %s", error)
        raise ConflictError(
            "the session's pool or data cannot be used any more; open a new session",
            code="session_unusable",
        ) from error
