"""The base models that the settings name."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath

from evomerge.app.errors import InvalidRequestError, UnavailableError
from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.headers import content_hash, linear_shapes, model_files
from evomerge.evaluation.errors import short

logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, int]]
# Name, size and time of change of each file of a model.
Stamp = tuple[tuple[str, int, int], ...]


class Bases:
    """Base models by name; the shapes of their layers and their hashes, read once.

    Safe for threads.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)
        self._shapes: dict[str, Shapes] = {}
        self._hashes: dict[str, tuple[Stamp, str]] = {}

    def folder(self, name: str) -> Path:
        """Where a base is.

        Raises:
            UnavailableError: the settings no longer name it.
        """
        if name not in self._folders:
            raise UnavailableError(
                f"base {name!r}: the service knows {self._known()}",
                param="base",
                code="base_unavailable",
            )
        return self._folders[name]

    def shapes(self, name: str) -> Shapes:
        """(d_out, d_in) of every layer that an adapter may touch, by module name.

        Raises:
            UnavailableError: the folder in the settings is no model.
        """
        if name not in self._shapes:
            with _usable(name):
                self._shapes[name] = linear_shapes(self.folder(name))
        return self._shapes[name]

    def known_hash(self, name: str) -> str | None:
        """What `read_hash` found, unless the files have changed since; looks at no byte of them.

        Raises:
            UnavailableError: as `shapes`.
        """
        with _usable(name):
            stamp = _stamp(self.folder(name))
        found, kept = self._hashes.get(name, (None, None))
        return kept if found == stamp else None

    def read_hash(self, name: str) -> str:
        """SHA-256 of a base's files. Slow, a second a gigabyte, for files that are new.

        Raises:
            UnavailableError: as `shapes`.
        """
        with _usable(name):
            stamp = _stamp(self.folder(name))
            if (found := self._hashes.get(name)) and found[0] == stamp:
                return found[1]
            # Stamped before it is read: what changes meanwhile is read again next time.
            self._hashes[name] = (stamp, content_hash(self.folder(name)))
        return self._hashes[name][1]

    def choose(self, given: str | None, declared: str | None) -> str:
        """The base of an adapter: the one given, else the one it declares, else the only one.

        Args:
            given: a name, from the request.
            declared: `base_model_name_or_path` of adapter_config.json.

        Raises:
            InvalidRequestError: the settings have no such base, or several and none is named.
        """
        if given is not None:
            if given in self._folders:
                return given
            raise InvalidRequestError(
                f"base={short(given)}: the service knows {self._known()}", param="base"
            )
        for name, folder in self._folders.items():
            if declared in (name, str(folder), str(folder.resolve())):
                return name
        last = PurePath(declared or "").name
        if last in self._folders:
            return last
        if len(self._folders) == 1:
            return next(iter(self._folders))
        raise InvalidRequestError(
            f"base: the adapter names {short(declared)}, the service knows {self._known()}; "
            "say which one it is for",
            param="base",
        )

    def _known(self) -> str:
        return ", ".join(map(repr, sorted(self._folders))) or "no base model at all"


def _stamp(folder: Path) -> Stamp:
    states = [(path.name, path.stat()) for path in model_files(folder)]
    return tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)


@contextmanager
def _usable(name: str) -> Iterator[None]:
    """Say of a base that cannot be read what a client may know.

    Raises:
        UnavailableError: it cannot.
    """
    try:
        yield
    except (BaseFolderError, OSError) as error:
        logger.error("base %r: %s", name, error)
        raise UnavailableError(
            f"base {name!r}: its folder holds no usable model; see the log",
            param="base",
            code="base_unavailable",
        ) from error
