"""Errors of the storage, one tree."""

from __future__ import annotations


class StorageError(Exception):
    """Root of everything that the storage raises by itself."""


class LeaseLostError(StorageError):
    """Another worker has claimed the job since: what this one would have written is refused."""

    def __init__(self, job_id: str, token: int) -> None:
        super().__init__(f"the lease on job {job_id} (token {token}) was lost to another claim")
        self.job_id = job_id
        self.token = token


class JobNotFoundError(StorageError, LookupError):
    """No job has this id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r}")
        self.job_id = job_id


class JobStateError(StorageError):
    """What was asked of a job does not fit the state it is in."""

    def __init__(self, job_id: str, status: str, wanted: str) -> None:
        super().__init__(f"job {job_id} is {status} and cannot {wanted}")
        self.job_id = job_id
        self.status = status
        self.wanted = wanted


class NameTakenError(StorageError):
    """Another row has this name already."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"a {kind} named {name!r} exists already")
        self.kind = kind
        self.name = name


class UnknownCursorError(StorageError, LookupError):
    """The row to go on after is not there."""

    def __init__(self, after: str) -> None:
        super().__init__(f"no row {after!r} to go on after")
        self.after = after
