"""What a command ends with: the exit codes, and one clear line for each thing that went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from pydantic import ValidationError

from evomerge.connectors.base import ConnectorError
from evomerge.connectors.http import BadAddressError, HttpError, StatusError


class Exit(IntEnum):
    """Exit codes, a promise to scripts."""

    OK = 0
    JOB_FAILED = 1
    USAGE = 2
    UNREACHABLE = 3


class CommandError(Exception):
    """Root of what a command itself refuses."""

    code = Exit.USAGE


class InputError(CommandError):
    """A file, a field or an option that cannot be used; the message names it and its value."""


class ServiceError(CommandError):
    """The service, or the database below it, cannot be used."""

    code = Exit.UNREACHABLE


class JobFailedError(CommandError):
    """A job ended without a merged model."""

    code = Exit.JOB_FAILED


REPORTED = (CommandError, ConnectorError, ValidationError, OSError)


def exit_code(error: Exception) -> Exit:
    """The exit code that an error of `REPORTED` ends the program with."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, StatusError):
        return Exit.USAGE if error.status < 500 else Exit.UNREACHABLE
    if isinstance(error, HttpError) and not isinstance(error, BadAddressError):
        return Exit.UNREACHABLE
    return Exit.USAGE


def lines(error: Exception) -> Iterator[str]:
    """An error of `REPORTED` in words, one line for each field that is wrong."""
    if isinstance(error, ValidationError):
        yield from faults(error)
    elif isinstance(error, StatusError):
        if error.details:
            yield from error.details
        elif error.param is None or error.param in error.message:
            yield error.message
        else:
            yield f"{error.param}: {error.message}"
    elif isinstance(error, OSError) and error.filename is not None:
        yield f"{error.filename}: {error.strerror}"
    else:
        yield from str(error).splitlines()


def faults(error: ValidationError, given: object = None) -> list[str]:
    """One line a fault: the field's path, what is wrong, and the value that was given.

    Args:
        given: what was validated.
    """
    from evomerge.app.schemas.faults import faults as details

    return [detail.message for detail in details(error.errors(), given)]
