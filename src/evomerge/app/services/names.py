"""Names for what comes without one."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from evomerge.app.errors import InvalidRequestError
from evomerge.app.schemas.base import Name
from evomerge.evaluation.errors import short

_NAME: TypeAdapter[str] = TypeAdapter(Name)


def name_from(file_name: str | None) -> str:
    """The name of a file or folder, if it can be a name.

    Raises:
        InvalidRequestError: it cannot; one must be given.
    """
    try:
        return _NAME.validate_python(file_name)
    except ValidationError as error:
        raise InvalidRequestError(
            f"name: {short(file_name)} cannot be a name (letters, digits, dot, underscore, colon "
            "and dash); give one",
            param="name",
        ) from error
