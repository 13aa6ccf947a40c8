"""What endpoints are given."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, cast

from fastapi import Depends, Header, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from evomerge.app.schemas.base import Text
from evomerge.app.services.context import Context
from evomerge.app.services.once import Answer, Ticket


async def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


ContextDep = Annotated[Context, Depends(_context)]

Limit = Annotated[int, Query(ge=1, le=100, description="How many at most.")]
After = Annotated[
    Text | None,
    Query(max_length=64, description="Go on behind this id, the last one of the page before."),
]
Key = Annotated[Text, Path(max_length=128, description="An id or a name.")]
JobId = Annotated[Text, Path(max_length=64, description="A job's id.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Any string of your own, new for each thing to create. A request repeated "
        "with the same key and body gets the first one's answer; nothing is created twice.",
    ),
]


@dataclass(frozen=True)
class Asking:
    """Who asks for something to be created, and whether twice by the same key is once."""

    route: str
    key: str | None

    def ticket(self, body: BaseModel, *more: str) -> Ticket | None:
        """The idempotency key, bound to who asks what of which route; None without one.

        Args:
            body: what was asked.
            more: what was asked beside it, such as the hash of an uploaded file.
        """
        if self.key is None:
            return None
        asked = "\n".join([body.model_dump_json(exclude_unset=True), *more])
        return Ticket(self.key, self.route[:255], sha256(asked.encode()).hexdigest())


def _asking(request: Request, idempotency_key: IdempotencyKey = None) -> Asking:
    caller = getattr(request.state, "caller", "")
    return Asking(f"{caller} {request.method} {request.url.path}", idempotency_key)


AskingDep = Annotated[Asking, Depends(_asking)]


def answered(answer: Answer) -> JSONResponse:
    """An answer as it goes out."""
    return JSONResponse(answer.body, answer.status)
