"""Paths that clients name: only below the configured roots, whatever links lie on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath

from evomerge.app.errors import InvalidRequestError
from evomerge.evaluation.errors import short

_WILD = frozenset("*?[")


def below_roots(given: str, roots: Sequence[Path], param: str = "path") -> Path:
    """The path with its links resolved.

    Raises:
        InvalidRequestError: there is no such path below a root. Paths outside are not looked
            at, so that an answer never tells what exists there.
    """
    if not roots:
        raise InvalidRequestError(
            f"{param}={short(given)}: the service has no roots to read from; upload instead",
            param=param,
        )
    path, exists = _resolved(given, roots, param)
    if not any(path.is_relative_to(root.resolve()) for root in roots):
        raise _outside(given, param)
    if not exists:
        raise InvalidRequestError(f"{param}={short(given, 200)}: does not exist", param=param)
    return path


def folder_below_roots(given: str, roots: Sequence[Path], param: str = "path") -> Path:
    """The folder with its links resolved.

    Raises:
        InvalidRequestError: as `below_roots`; or it is a file.
    """
    folder = below_roots(given, roots, param)
    if not folder.is_dir():
        raise InvalidRequestError(f"{param}={short(given, 200)}: is not a folder", param=param)
    return folder


def folders_below_roots(
    pattern: str, roots: Sequence[Path], limit: int, param: str = "folders"
) -> list[Path]:
    """The folders that a pattern such as /pools/ie/* names, resolved, by name.

    Raises:
        InvalidRequestError: the pattern leaves the roots, or names no folder or too many.
    """
    if ".." in PurePath(pattern).parts:
        raise InvalidRequestError(f"{param}={short(pattern, 200)}: must not hold ..", param=param)
    fixed, wild = _cut(PurePath(pattern))
    start = below_roots(str(fixed), roots, param)
    found: list[Path] = []
    for match in start.glob(str(wild)) if wild.parts else [start]:
        if match.is_dir() and not match.name.startswith("."):
            found.append(below_roots(str(match), roots, param))
        if len(found) > limit:
            raise InvalidRequestError(
                f"{param}={short(pattern, 200)}: names more than {limit} folders", param=param
            )
    if not found:
        raise InvalidRequestError(f"{param}={short(pattern, 200)}: names no folder", param=param)
    return sorted(found, key=lambda folder: (folder.name, folder))


def _resolved(given: str, roots: Sequence[Path], param: str) -> tuple[Path, bool]:
    """The path without its links, and whether it exists; a relative one is below some root."""
    try:
        candidates = [(root / given).resolve() for root in roots]  # an absolute path stays itself
        found = next((path for path in candidates if path.exists()), None)
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL, a loop of links
        raise InvalidRequestError(
            f"{param}={short(given, 200)}: is no path that can be read", param=param
        ) from error
    return found or candidates[0], found is not None


def _cut(pattern: PurePath) -> tuple[PurePath, PurePath]:
    """The part before the first wildcard, and the rest."""
    for number, part in enumerate(pattern.parts):
        if _WILD.intersection(part):
            return PurePath(*pattern.parts[:number]), PurePath(*pattern.parts[number:])
    return pattern, PurePath()


def _outside(given: str, param: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{param}={short(given, 200)}: lies outside the service's roots",
        param=param,
        code="path_outside_roots",
    )
