"""Why a job ends without a result, one tree."""

from __future__ import annotations


class JobError(Exception):
    """The job cannot succeed; the message tells a person what to change.

    Attributes:
        code: a short name for programs.
        param: the field of the spec that is at fault, if one is.
    """

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class InputChangedError(JobError):
    """A file that the job was created with is gone or has other content now."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__("input_changed", f"{what} {reason} since the job was created")


class StoppedError(Exception):
    """Not a failure: a pause, a cancel or the worker's own end was asked for."""
