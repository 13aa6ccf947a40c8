"""The ELMs of a forest, loaded when they are read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.forest.errors import (
    ElmChangedError,
    ElmMismatchError,
    ElmsTooLargeError,
)
from evomerge.merging.checkpoint.guards import vocabulary_hash
from evomerge.merging.forest.errors import ArgumentError


@dataclass(frozen=True)
class Elm:
    """Where one ELM is.

    Attributes:
        name: what people call it.
        folder: config.json, *.safetensors and the tokenizer.
        content_hash: what its files must have, where that is known.
    """

    name: str
    folder: Path
    content_hash: str | None = None


class Elms:
    """ELMs of one vocabulary: all in memory, or as many at once as may be.

    Safe to call from any thread.

    Args:
        elms: at least one, of different names.
        device, dtype, threads: see `load_base`.
        memory_bytes: of weights in memory at once at most (one ELM may always be); the one that
            was read longest ago makes room. None sets no limit.

    Raises:
        ArgumentError: no ELM, or two of one name.
    """

    def __init__(
        self,
        elms: Sequence[Elm],
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        self.elms = tuple(elms)
        self.names = tuple(elm.name for elm in elms)
        if not elms or len(set(self.names)) < len(elms):
            raise ArgumentError("elms", self.names, "must be different ELMs, at least one")
        self._device, self._dtype, self._threads = device, dtype, threads
        self._memory = memory_bytes
        self._held: OrderedDict[int, BaseModel] = OrderedDict()
        self._bytes = 0  # of each; known once one was loaded, for all are of one shape
        self._words: tuple[str, str] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.elms)

    def model(self, place: int) -> BaseModel:
        """One ELM, loaded if it is not in memory.

        Raises:
            BaseFolderError: its folder is no model.
            ElmChangedError: its files are not those its hash was taken of.
            ElmMismatchError: it has another vocabulary than one that was loaded before.
        """
        with self._lock:
            if place not in self._held:
                self._make_room()
                self._held[place] = self._load(self.elms[place])
            self._held.move_to_end(place)
            return self._held[place]

    def models(self, places: Sequence[int] | None = None) -> list[BaseModel]:
        """Some ELMs, all by default, in memory together.

        Raises:
            ElmsTooLargeError: they may not be.
            BaseFolderError, ElmChangedError, ElmMismatchError: see `model`.
        """
        wanted = range(len(self)) if places is None else places
        first = self.model(wanted[0])
        if self._memory is not None and len(wanted) > self._most:
            raise ElmsTooLargeError(len(wanted), len(wanted) * self._bytes, self._memory)
        return [first, *map(self.model, wanted[1:])]

    def any(self) -> BaseModel:
        """An ELM that is in memory, or the first: for what all have in common."""
        with self._lock:
            held = next(reversed(self._held), 0)
        return self.model(held)

    def take_over(self, other: Elms) -> None:
        """Take what another forest holds of the same files, so that it is not loaded again.

        Both must have been made with the same device, dtype and threads.
        """
        with other._lock:
            held = {other.elms[place]: base for place, base in other._held.items()}
            known = other._bytes, other._words
        with self._lock:
            for place, elm in enumerate(self.elms):
                if elm.content_hash is not None and elm in held and len(self._held) < self._most:
                    self._bytes, self._words = known
                    self._held[place] = held[elm]

    @property
    def _most(self) -> int:
        """How many may be in memory at once."""
        if self._memory is None or not self._bytes:
            return len(self)
        return max(1, self._memory // self._bytes)

    def _make_room(self) -> None:
        while len(self._held) >= self._most:
            self._held.popitem(last=False)

    def _load(self, elm: Elm) -> BaseModel:
        base = load_base(
            elm.folder,
            name=elm.name,
            device=self._device,
            dtype=self._dtype,
            threads=self._threads,
        )
        if elm.content_hash not in (None, base.content_hash):
            raise ElmChangedError(elm.name, elm.folder)
        words = _words(elm.folder, base)
        if self._words is None:
            self._words = (elm.name, words)
        if words != self._words[1]:
            raise ElmMismatchError(elm.name, self._words[0], "vocabulary")
        self._bytes = sum(each.numel() * each.element_size() for each in base.model.parameters())
        return base


def _words(folder: Path, base: BaseModel) -> str:
    """How text becomes tokens, and how many of them the model knows."""
    size = int(base.projection.out_features)
    return f"{vocabulary_hash(folder)} {size} {base.end_tokens}"
