"""The base models that the settings name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path, PurePath

from evomerge.app.errors import InvalidRequestError, UnavailableError
from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.headers import linear_shapes
from evomerge.evaluation.errors import short

logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, int]]


class Bases:
    """Base models by name, and the shapes of their layers, read once. Safe for threads."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = dict(folders)
        self._shapes: dict[str, Shapes] = {}

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
            try:
                self._shapes[name] = linear_shapes(self.folder(name))
            except (BaseFolderError, OSError) as error:
                logger.error("base %r: %s", name, error)
                raise UnavailableError(
                    f"base {name!r}: its folder holds no usable model; see the log",
                    param="base",
                    code="base_unavailable",
                ) from error
        return self._shapes[name]

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
