"""Names: made for what comes without one, and kept apart where two kinds of things share them."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from evomerge.app.db.models import Forest, Pool
from evomerge.app.db.repositories import names
from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.base import Name
from evomerge.evaluation.errors import short

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def name_from(file_name: str | None, param: str = "name") -> str:
    """The name of a file or folder, if it can be a name.

    Args:
        param: the field that could give another.

    Raises:
        InvalidRequestError: it cannot; one must be given.
    """
    try:
        return _NAME.validate_python(file_name)
    except ValidationError as error:
        raise InvalidRequestError(
            f"{param}: {short(file_name)} cannot be a name (letters, digits, dot, underscore, "
            "colon and dash); give one",
            param=param,
        ) from error


async def refuse_name_of(
    session: AsyncSession, other: type[Pool] | type[Forest], name: str
) -> None:
    """Make sure that a new forest's name is no pool's, or a new pool's no forest's.

    It stays so until the write transaction ends.

    Raises:
        ConflictError: it is taken.
    """
    await names.hold(session)
    owner = await names.owner(session, other, name)
    if owner is not None:
        raise ConflictError(
            f"name={name!r}: {owner} has this name; pools and forests share theirs",
            param="name",
            code="name_taken",
        )
