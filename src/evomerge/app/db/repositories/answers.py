"""Answers by the content of their questions, and claims on questions that are being asked.

A row is a claim while it holds neither answer nor failure: its owner asks, and has until the
lease ends by the database's clock. An answer, once there, never changes. Functions take a session
and never commit; writing ones expect `Database.write()`. Rows are written in the order of their
keys, so that two writers never wait for each other in a circle.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, and_, null, or_, schema, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db import json_text
from evomerge.app.db.engine import epoch
from evomerge.app.db.models import StoredAnswer, Table
from evomerge.connectors.errors import QuestionRefusedError, TooLongError
from evomerge.connectors.question import Answer

Outcome = Answer | QuestionRefusedError

_REFUSALS: Mapping[str, type[QuestionRefusedError]] = {
    "refused": QuestionRefusedError,
    "too_long": TooLongError,
}
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
# How JSON spells them; a text may spell them itself, which does no harm.
_SUSPECT = re.compile(r"\\u(0000|d)")
_OPEN = and_(StoredAnswer.answer.is_(None), StoredAnswer.failure.is_(None))


def insert_into(session: AsyncSession, table: type[Table]) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can say what becomes of rows that are there already."""
    # The bare table: rows need not pass through the mapper, which costs more than to write them.
    bare = _bare(table)
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(bare)
    return sqlite.insert(bare)


def _bare(table: type[Table]) -> schema.Table:
    return cast(schema.Table, table.__table__)


async def find(session: AsyncSession, keys: Sequence[str]) -> dict[str, Outcome]:
    """What is known of these questions; those that nobody has answered are left out."""
    table = _bare(StoredAnswer)
    # Not by the mapper, which would parse all answers before the first is taken.
    query = select(table.c.key, table.c.answer, table.c.failure).where(
        table.c.key.in_(keys), or_(table.c.answer.is_not(None), table.c.failure.is_not(None))
    )
    rows = await session.execute(query)
    return {
        key: Answer.from_json(answer) if answer is not None else _refusal(failure)
        for key, answer, failure in rows
    }


async def claim(
    session: AsyncSession, models: Mapping[str, str], owner: str, lease_seconds: float
) -> set[str]:
    """Claim the questions that nobody has answered and nobody else is asking.

    Args:
        models: base URL and model by the question's key.
        owner: a claim that it holds already is given again.

    Returns:
        The keys that are its own now.
    """
    rows = [{"key": key, "model": models[key]} for key in sorted(models)]
    query = (
        insert_into(session, StoredAnswer)
        .values(owner=owner, lease_until=epoch() + lease_seconds, created_at=epoch())
        .on_conflict_do_nothing()
        .returning(StoredAnswer.key)
    )
    claimed = set(await session.scalars(query, rows))
    missed = sorted(models.keys() - claimed)
    if missed:
        free = select(StoredAnswer.key).where(StoredAnswer.key.in_(missed), _OPEN, _free(owner))
        taken = list(await session.scalars(free.with_for_update(skip_locked=True)))
        await _change(session, taken, owner=owner, lease_until=epoch() + lease_seconds)
        claimed.update(taken)
    return claimed


async def renew(
    session: AsyncSession, keys: Iterable[str], owner: str, lease_seconds: float
) -> None:
    """Prolong the claims of an owner, all at once.

    What another transaction holds is left out: it is being answered or given back just then, and
    to wait for it while it waits for us would be a deadlock.
    """
    mine = select(StoredAnswer.key).where(
        StoredAnswer.key.in_(sorted(keys)), _OPEN, StoredAnswer.owner == owner
    )
    held = await session.scalars(mine.with_for_update(skip_locked=True))
    await _change(session, list(held), lease_until=epoch() + lease_seconds)


async def release(session: AsyncSession, keys: Iterable[str], owner: str) -> None:
    """Give claims back: whoever comes next may ask. Others' claims are left alone."""
    await _change(
        session,
        sorted(keys),
        _OPEN,
        StoredAnswer.owner == owner,
        owner=None,
        lease_until=None,
    )


async def store(
    session: AsyncSession, outcomes: Mapping[str, tuple[str, Outcome]]
) -> dict[str, Outcome]:
    """Store answers and refusals, whoever holds the claims: they are paid for.

    Args:
        outcomes: base URL and model, and what came back, by the question's key.

    Returns:
        What is stored: where another was first, and its answer is there already, that one; and
        with U+FFFD for what Postgres has no room for in a text (NUL, half a surrogate pair).
    """
    kept = {key: _storable(outcome) for key, (_, outcome) in sorted(outcomes.items())}
    written: set[str] = set()
    for column, kind in (("answer", Answer), ("failure", QuestionRefusedError)):
        rows = [
            {"key": key, "model": outcomes[key][0], column: _json(outcome)}
            for key, outcome in kept.items()
            if isinstance(outcome, kind)
        ]
        if rows:
            written.update(await session.scalars(_upsert(session, column), rows))
    late = [key for key in kept if key not in written]
    return {**kept, **(await find(session, late) if late else {})}


def _upsert(session: AsyncSession, column: str) -> Any:
    query = insert_into(session, StoredAnswer).values(created_at=epoch())
    return query.on_conflict_do_update(
        index_elements=["key"],
        # null(), for a parameter here would have the driver send the rows one by one.
        set_={column: query.excluded[column], "owner": null(), "lease_until": null()},
        where=_OPEN,
    ).returning(StoredAnswer.key)


async def _change(
    session: AsyncSession, keys: Sequence[str], *where: ColumnElement[bool], **values: Any
) -> None:
    if keys:
        await session.execute(
            update(StoredAnswer)
            .where(StoredAnswer.key.in_(keys), *where)
            .values(**values)
            .execution_options(synchronize_session=False)
        )


def _free(owner: str) -> ColumnElement[bool]:
    return or_(
        StoredAnswer.owner.is_(None),
        StoredAnswer.owner == owner,
        StoredAnswer.lease_until < epoch(),
    )


def _storable(outcome: Outcome) -> Outcome:
    if not _SUSPECT.search(json_text.written(_json(outcome))):
        return outcome
    cleaned = _cleaned(_json(outcome))
    return Answer.from_json(cleaned) if isinstance(outcome, Answer) else _refusal(cleaned)


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _UNSTORABLE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {key: _cleaned(item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list | tuple) else value


def _json(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Answer):
        return outcome.to_json()
    kind = "too_long" if isinstance(outcome, TooLongError) else "refused"
    return {
        "kind": kind,
        "model": outcome.model,
        "reason": outcome.reason,
        "param": outcome.param,
    }


def _refusal(failure: Mapping[str, Any]) -> QuestionRefusedError:
    """As it was raised; but found again, it was not sent and cost nothing."""
    kind = _REFUSALS[failure["kind"]]
    return kind(failure["model"], failure["reason"], param=failure["param"], requests=0)
