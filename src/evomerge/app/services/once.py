"""Creating a thing exactly once, however often and however parallel it is asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.engine import Database
from evomerge.app.db.errors import NameTakenError
from evomerge.app.db.repositories import idempotency
from evomerge.app.errors import ConflictError

# A lost race leaves the winner's row behind, so the second round sees it.
_ROUNDS = 3


@dataclass(frozen=True)
class Ticket:
    """An idempotency key as it was presented.

    Attributes:
        key: the client's own.
        route: who asks for what; the same key elsewhere is another key.
        body_hash: of everything that the request asks for.
    """

    key: str
    route: str
    body_hash: str


@dataclass(frozen=True)
class Answer:
    """Status and body of an answer; `id` names what was made or found."""

    status: int
    body: dict[str, Any]
    id: str


Make = Callable[[AsyncSession], Awaitable[Answer]]


async def once(database: Database, ticket: Ticket | None, make: Make) -> Answer:
    """The answer of `make`, or the one that the ticket's key was given before.

    What was made and the answer to its key are written in one transaction, and the key is
    unique, so of two at once one makes it and the other gets the same answer.

    Args:
        make: makes the thing in the session's transaction; may run again after a lost race.

    Raises:
        ConflictError: the key was used with another body, or a name was taken meanwhile.
    """
    for rest in reversed(range(_ROUNDS)):
        try:
            async with database.write() as session:
                if ticket is not None:
                    kept = await _kept(session, ticket)
                    if kept is not None:
                        return kept
                answer = await make(session)
                if ticket is not None:
                    await _keep(session, ticket, answer)
                return answer
        except (NameTakenError, IntegrityError) as error:
            if not rest:
                raise ConflictError("another request was changing the same; try again") from error
    raise AssertionError("unreachable")


async def given_before(database: Database, ticket: Ticket | None) -> Answer | None:
    """The answer that the ticket's key was given before, if any; spares work that is slow.

    Raises:
        ConflictError: the key was used with another body.
    """
    if ticket is None:
        return None
    async with database.read() as session:
        return await _kept(session, ticket)


async def _kept(session: AsyncSession, ticket: Ticket) -> Answer | None:
    row = await idempotency.find(session, ticket.key, ticket.route)
    if row is None:
        return None
    if row.body_hash != ticket.body_hash:
        raise ConflictError(
            f"Idempotency-Key {ticket.key!r} was used with another body; take a new key",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )
    return Answer(row.status, row.response, row.resource_id)


async def _keep(session: AsyncSession, ticket: Ticket, answer: Answer) -> None:
    await idempotency.add(
        session,
        key=ticket.key,
        route=ticket.route,
        body_hash=ticket.body_hash,
        resource_id=answer.id,
        status=answer.status,
        response=answer.body,
    )
