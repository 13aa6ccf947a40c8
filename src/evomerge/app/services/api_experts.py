"""Experts that are known by their API: probed when they are registered, and on demand."""

from __future__ import annotations

import json
import time
from hashlib import sha256

from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Expert as ExpertRow
from evomerge.app.db.repositories import experts
from evomerge.app.db.repositories.experts import NewExpert
from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.api_experts import ApiDefinition, ApiExpertCreate
from evomerge.app.schemas.experts import Expert
from evomerge.app.services.context import Context
from evomerge.app.services.references import known
from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    HostRefusedError,
    UnknownModelError,
)
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.probe import probe

API = "api"
# What a probe found is a property of the endpoint: a hundred prompts over one need one probe.
FRESH_SECONDS = 600.0

_FIELDS = {HostRefusedError: "base_url", CredentialError: "credential", UnknownModelError: "model"}


async def probed(context: Context, body: ApiExpertCreate) -> NewExpert:
    """The row to be of an API expert whose endpoint answers.

    Raises:
        InvalidRequestError: the endpoint may not be called, or gives no answer; names the field.
    """
    capabilities = await _known(context, body) or await _probe(context, body)
    definition = body.definition
    return NewExpert(
        name=body.name,
        base=None,
        path=None,
        content_hash=content_hash(definition),
        info={"capabilities": capabilities.to_json()},
        meta=body.metadata,
        kind=API,
        definition=definition,
    )


async def check(context: Context, key: str) -> Expert:
    """Probe an expert's endpoint again and keep what is found.

    Raises:
        NotFoundError: there is no such expert.
        ConflictError: it is not known by its API.
        InvalidRequestError: the endpoint may not be called, or gives no answer.
    """
    async with context.database.read() as session:
        row = await _api_row(session, key)
    body = ApiDefinition.model_validate(row.definition)
    capabilities = await _probe(context, body)
    async with context.database.write() as session:
        row = await _api_row(session, row.id)
        await experts.set_info(session, row.id, {"capabilities": capabilities.to_json()})
    async with context.database.read() as session:
        return Expert.model_validate(await _api_row(session, row.id))


def content_hash(definition: dict[str, object]) -> str:
    """SHA-256 of how an expert is called."""
    return sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()


async def _known(context: Context, body: ApiDefinition) -> Capabilities | None:
    """What another expert's probe of the same endpoint has just found."""
    async with context.database.read() as session:
        for row in await experts.newest_of_kind(session, API):
            there = ApiDefinition.model_validate(row.definition)
            found = Capabilities.from_json(row.info["capabilities"])
            same = (there.endpoint, there.interface) == (body.endpoint, body.interface)
            if same and time.time() - found.checked_at < FRESH_SECONDS:
                return found
    return None


async def _probe(context: Context, body: ApiDefinition) -> Capabilities:
    connector = context.connectors.of(body.provider)
    interface = None if body.interface == "auto" else body.interface
    expert = body.expert("probed", Capabilities())
    try:
        return await probe(
            connector,
            body.endpoint,
            interface,
            expert.sampling,
            time.time,
            context.connectors.caller,
        )
    except AskError as error:
        param = next((p for kind, p in _FIELDS.items() if isinstance(error, kind)), "base_url")
        raise InvalidRequestError(
            f"{param}: the probe got no answer: {error}", param=param, code="endpoint_unusable"
        ) from error


async def _api_row(session: AsyncSession, key: str) -> ExpertRow:
    row = await known(session, ExpertRow, key)
    if row.kind != API:
        raise ConflictError(f"expert {row.name!r} has no API to check", code="not_an_api_expert")
    return row
