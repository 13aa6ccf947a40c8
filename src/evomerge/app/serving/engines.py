"""The engines of this process: one a base with adapters beside it, one a checkpoint of a job."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.app.errors import NotPossibleError
from evomerge.app.serving.errors import ModelUnavailableError
from evomerge.app.serving.local import ChatForm, LocalModel
from evomerge.app.settings import Settings
from evomerge.app.worker.artifacts import changed_file
from evomerge.connectors.local.errors import LocalModelError

if TYPE_CHECKING:
    from evomerge.connectors.local.base_model import BaseModel
    from evomerge.connectors.local.engine import Engine
    from evomerge.connectors.local.engine_layers import EngineAdapter
    from evomerge.connectors.local.engine_model import EngineModel
    from evomerge.connectors.local.engine_prompts import Prompter

logger = logging.getLogger(__name__)

# SHA-256 of files by name, read only when it is needed.
Hashes = Callable[[], Awaitable[Mapping[str, str]]]

# Adapters kept in memory beside a base.
_ADAPTERS = 64
# Checkpoints of jobs that stay in memory; the one that was called longest ago goes first.
_CHECKPOINTS = 4


@dataclass(frozen=True)
class _Loaded:
    """A base and what answers with it."""

    base: BaseModel
    engine: Engine
    prompter: Prompter


class Engines:
    """Makes local models. For one event loop; what is slow runs in threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading = asyncio.Lock()
        self._loaded: dict[str, _Loaded] = {}
        self._adapters: OrderedDict[tuple[str, Path], EngineAdapter] = OrderedDict()
        self._checkpoints: OrderedDict[Path, _Loaded] = OrderedDict()

    async def model(
        self,
        base: str,
        folder: Path | None,
        form: ChatForm,
        *,
        content_hash: str | None = None,
        base_hash: str | None = None,
        files: Hashes | None = None,
    ) -> LocalModel:
        """The adapter in a folder over a base; without a folder the base alone.

        Args:
            content_hash, base_hash: what adapter and base must have, where that is known.
            files: tells what the adapter's files must be when it is loaded, where a job made it.

        Raises:
            ModelUnavailableError: the base or the adapter cannot be read, or has changed.
            NotPossibleError: torch is not installed.
        """
        async with self._loading:
            with needs_torch():
                loaded = await self._get(base)
                adapter = await self._adapter(base, folder, loaded.base, files)
        if adapter is not None and content_hash not in (None, adapter.key):
            raise ModelUnavailableError("the adapter's files have changed", param="model")
        if base_hash not in (None, loaded.base.content_hash):
            raise ModelUnavailableError(
                f"base {base!r} is another one than the merge was made for", param="model"
            )
        return LocalModel(loaded.engine, loaded.prompter, adapter, form)

    async def checkpoint(
        self, name: str, folder: Path, form: ChatForm, files: Hashes
    ) -> LocalModel:
        """A whole model that a job made.

        Args:
            name: what errors call it.
            folder: its checkpoint.
            files: tells what its files must be when it is loaded.

        Raises:
            ModelUnavailableError: it cannot be read, or has changed.
            NotPossibleError: torch is not installed.
        """
        async with self._loading:
            known = self._checkpoints.get(folder)
            if known is None or known.engine.closed:
                with needs_torch():
                    await asyncio.to_thread(_check_files, name, folder, await files())
                    self._checkpoints[folder] = await asyncio.to_thread(self._load, name, folder)
            self._checkpoints.move_to_end(folder)
            while len(self._checkpoints) > _CHECKPOINTS:
                self._checkpoints.popitem(last=False)[1].engine.retire()
            loaded = self._checkpoints[folder]
        return LocalModel(loaded.engine, loaded.prompter, None, form)

    async def close(self) -> None:
        """End every engine; what is under way fails."""
        for loaded in (*self._loaded.values(), *self._checkpoints.values()):
            await asyncio.to_thread(loaded.engine.close)
        self._loaded.clear()
        self._checkpoints.clear()

    async def _get(self, base: str) -> _Loaded:
        known = self._loaded.get(base)
        if known is None or known.engine.closed:
            folder = self._settings.bases.get(base)
            if folder is None:
                raise ModelUnavailableError(
                    f"base {base!r} is not among the service's bases", param="model"
                )
            self._loaded[base] = await asyncio.to_thread(self._load, f"base {base!r}", folder)
        return self._loaded[base]

    async def _adapter(
        self, name: str, folder: Path | None, base: BaseModel, files: Hashes | None
    ) -> EngineAdapter | None:
        if folder is None:
            return None
        key = (name, folder)
        if key not in self._adapters:
            if files is not None:
                await asyncio.to_thread(_check_files, "the model's adapter", folder, await files())
            self._adapters[key] = await asyncio.to_thread(_load_adapter, folder, base)
        self._adapters.move_to_end(key)
        while len(self._adapters) > _ADAPTERS:
            self._adapters.popitem(last=False)
        return self._adapters[key]

    def _load(self, what: str, folder: Path) -> _Loaded:
        # Here, not above: the service must do without torch until a model is called.
        from evomerge.connectors.local.base_model import load_base
        from evomerge.connectors.local.engine_prompts import Prompter
        from evomerge.connectors.local.engine_single import SingleModel

        settings = self._settings
        try:
            base = load_base(
                folder,
                device=settings.device,
                dtype=settings.dtype,
                threads=settings.threads,
            )
        except (LocalModelError, OSError) as error:
            logger.error("%s: %s", what, error)
            raise ModelUnavailableError(
                f"{what} cannot be loaded; see the log", param="model"
            ) from error
        return _Loaded(base, new_engine(SingleModel(base), settings), Prompter(base))


def new_engine(model: EngineModel, settings: Settings, *, caches: int = 1) -> Engine:
    """An engine over a model that keeps so many caches of each text."""
    from evomerge.connectors.local.engine import Engine

    return Engine(
        model,
        batch_tokens=settings.batch_tokens,
        rows=settings.serve_rows,
        waiting=settings.serve_waiting,
        cache_tokens=settings.serve_cache_tokens // caches,
    )


@contextmanager
def needs_torch() -> Iterator[None]:
    """Around what loads a model.

    Raises:
        NotPossibleError: torch, or what comes with it, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise NotPossibleError(
            f"this model needs {error.name}, which is not installed: "
            "pip install 'evo-merging[local]'"
        ) from error


def _check_files(what: str, folder: Path, files: Mapping[str, str]) -> None:
    changed = changed_file(folder, files)
    if changed is not None:
        logger.error("%s: %s has changed", what, folder / changed)
        raise ModelUnavailableError(
            f"{what}: its file {changed} has changed since the job wrote it", param="model"
        )


def _load_adapter(folder: Path, base: BaseModel) -> EngineAdapter:
    from evomerge.connectors.local.engine_layers import load_engine_adapter
    from evomerge.merging.lora.errors import AdapterError

    try:
        return load_engine_adapter(folder, base)
    except (AdapterError, OSError) as error:
        logger.error("adapter %s: %s", folder, error)
        raise ModelUnavailableError(
            "the model's adapter cannot be read; see the log", param="model"
        ) from error
