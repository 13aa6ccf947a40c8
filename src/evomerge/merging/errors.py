"""What the errors of merging rooms share. Needs no torch, so that the service can catch them."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path


class MergingError(Exception):
    """Root of what the rooms that hold weights raise."""


class CandidateError(MergingError, ValueError):
    """A candidate does not fit the pool; names the array and what is wrong with it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"candidate {field}: {reason}")
        self.field = field


class LayerGroupsError(MergingError, ValueError):
    """Layers cannot be cut into so many groups; names the number."""

    def __init__(self, groups: int, layers: int) -> None:
        super().__init__(f"groups={groups}: must be 1 to {max(1, layers)}, one a layer")
        self.groups = groups
        self.layers = layers


class ArtifactWriteError(MergingError, OSError):
    """Writing a merged model failed; nothing of it was left behind.

    Attributes:
        errno: the system's number, as on every OSError.
    """

    def __init__(self, folder: Path, cause: OSError) -> None:
        super().__init__(f"{folder}: {cause.strerror or cause}")
        self.folder = folder
        self.errno = cause.errno

    @classmethod
    def of(cls, folder: Path, cause: OSError) -> ArtifactWriteError:
        """The error for a cause: `DiskFullError` where that is what happened."""
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
        return DiskFullError(folder, cause) if full else ArtifactWriteError(folder, cause)


class DiskFullError(ArtifactWriteError):
    """The disk, or the quota, has no room for the merged model."""


def listed(names: Sequence[str], limit: int = 3) -> str:
    """The first few of many names, for a message."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
