"""Which cluster a text is of, by its words (c-BTM, Gururangan et al. 2023, arXiv 2303.14177).

A text is embedded by its words' tf-idf, projected on the directions of an SVD and scaled to length
1. With d_j its distance to the centre of cluster j, ELM j gets the weight softmax_j(-d_j^2 / T),
T = 0.1. A token's weights come from the text before it, so that they are causal, and the k largest
may be kept (`top_k.keep_top`) and mixed (`ensemble.mixture`). A text without a known word says
nothing, and its weights are equal.

Words are runs of two and more letters, digits or underscores, without regard to case. Needs numpy
alone; `clusters` makes routers, and needs scikit-learn.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.errors import ArgumentError, RouterFileError
from evomerge.merging.forest.logs import normalised
from evomerge.merging.storing import written_whole

TEMPERATURE = 0.1

_VERSION = 1
_WORDS_FILE, _ARRAYS_FILE = "router.json", "router.npz"
# What numpy raises where a file holds no such arrays, or more than arrays.
_NO_ARRAYS = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
_RUN = re.compile(r"\w+")
_RUN_AT_END = re.compile(r"\w*\Z")


@dataclass(frozen=True)
class Router:
    """Words, directions and centres.

    Attributes:
        words: w different ones.
        directions: (w, d), what one occurrence of each word adds, its inverse document frequency
            included.
        centres: (n, d), one a cluster.
        temperature: T, above 0.

    Raises:
        ArgumentError: shapes that do not fit, values that are not finite, or T out of range.
    """

    words: tuple[str, ...]
    directions: FloatArray
    centres: FloatArray
    temperature: float = TEMPERATURE

    def __post_init__(self) -> None:
        if len(self._places) != len(self.words):
            raise ArgumentError("words", len(self.words), "must all be different")
        for field, array in (("directions", self.directions), ("centres", self.centres)):
            if array.ndim != 2 or not np.isfinite(array).all():
                raise ArgumentError(field, array.shape, "must be a finite matrix")
        if len(self.directions) != len(self.words):
            raise ArgumentError(
                "directions", self.directions.shape, "must have a row for each word"
            )
        if not len(self.centres) or self.centres.shape[1] != self.directions.shape[1]:
            raise ArgumentError("centres", self.centres.shape, "must have the directions' columns")
        if not (np.isfinite(self.temperature) and self.temperature > 0):
            raise ArgumentError("temperature", self.temperature, "must be above 0")

    @property
    def clusters(self) -> int:
        """n."""
        return len(self.centres)

    def embed(self, texts: Iterable[str]) -> FloatArray:
        """Texts as vectors (m, d) of length 1, or 0 where no word is known."""
        rows = [self._sum(Counter(words_of(text))) for text in texts]
        return unit(np.array(rows).reshape(len(rows), self.directions.shape[1]))

    def log_weights(self, texts: Iterable[str]) -> FloatArray:
        """Log-weights (m, n) of the clusters for whole texts, each row normalised."""
        return self._weighed(self.embed(texts))

    def token_log_weights(self, pieces: Sequence[str]) -> FloatArray:
        """Log-weights before each token of a text.

        Args:
            pieces: the text, cut into what each of T tokens stands for.

        Returns:
            (n, T) float64, normalised over the clusters; column t depends on pieces before t alone
            and is that of `log_weights` for them put together.
        """
        reading = Reading(self)
        rows = np.empty((len(pieces), self.directions.shape[1]))
        for row, piece in zip(rows, pieces, strict=True):
            row[:] = reading.vector()
            reading.observe(piece)
        return self._weighed(unit(rows)).T

    def save(self, folder: Path) -> None:
        """Write to a folder, whole or not at all; what was there is replaced.

        Raises:
            ArtifactWriteError: the system refused; nothing of it was left behind.
        """
        head = {"version": _VERSION, "temperature": self.temperature, "words": self.words}
        with written_whole(folder) as fresh:
            (fresh / _WORDS_FILE).write_text(json.dumps(head), encoding="utf-8")
            np.savez(
                fresh / _ARRAYS_FILE,
                allow_pickle=False,
                directions=self.directions,
                centres=self.centres,
            )

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote. No code in it is run: there is no pickle.

        Raises:
            RouterFileError: a file is missing, malformed, or does not fit the other.
        """
        words, temperature = _read_head(folder / _WORDS_FILE)
        directions, centres = _read_arrays(folder / _ARRAYS_FILE)
        try:
            return cls(words, directions, centres, temperature)
        except ArgumentError as error:
            raise RouterFileError(folder, str(error)) from error

    @cached_property
    def _places(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}

    def _sum(self, counts: Counter[str]) -> FloatArray:
        """sum (1 + log count) * direction, (d,): its length means nothing."""
        known = [(self._places[w], n) for w, n in counts.items() if w in self._places]
        places = [place for place, _ in known]
        total: FloatArray = tf([n for _, n in known]) @ self.directions[places]
        return total

    def _weighed(self, vectors: FloatArray) -> FloatArray:
        logs = normalised(-squared_distances(vectors, self.centres) / self.temperature, axis=1)
        nothing = ~vectors.any(axis=1, keepdims=True)
        return np.where(nothing, -np.log(self.clusters), logs)


class Reading:
    """A text that is being read or written, piece by piece, and its weights so far.

    What a piece costs does not grow with the text: of the words read only their numbers count, and
    the last one is kept open, since the next piece may go on with it.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._counts: Counter[str] = Counter()
        self._closed = np.zeros(router.directions.shape[1])
        self._open = ""

    def observe(self, piece: str) -> None:
        """A piece of text follows."""
        text = self._open + piece
        at_end = _RUN_AT_END.search(text)
        cut = len(text) if at_end is None else at_end.start()
        for word in words_of(text[:cut]):
            if word in self._router._places:
                self._closed = self._with(word)
                self._counts[word] += 1
        self._open = text[cut:]

    def vector(self) -> FloatArray:
        """(d,), in the direction of what `Router.embed` gives for the text so far."""
        found = self._closed
        for word in words_of(self._open):
            found = self._with(word)
        return found

    def log_weights(self) -> FloatArray:
        """Of the token that comes next, (n,) log-weights, normalised."""
        log_weights: FloatArray = self._router._weighed(unit(self.vector()[None]))[0]
        return log_weights

    def _with(self, word: str) -> FloatArray:
        """The sum of closed words and this one."""
        place = self._router._places.get(word)
        if place is None:
            return self._closed
        before = self._counts[word]
        more = tf([before + 1])[0] - (tf([before])[0] if before else 0.0)
        longer: FloatArray = self._closed + more * self._router.directions[place]
        return longer


def words_of(text: str) -> list[str]:
    """The words of a text, in order."""
    return [run.casefold() for run in _RUN.findall(text) if len(run) > 1]


def tf(counts: Sequence[int]) -> FloatArray:
    """1 + log of how often words occur, at least once each."""
    frequency: FloatArray = 1.0 + np.log(np.array(counts, dtype=np.float64))
    return frequency


def unit(vectors: FloatArray) -> FloatArray:
    """Rows (m, d) scaled to length 1; those of 0, but for rounding, become 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    some = lengths > 1e-9
    scaled: FloatArray = np.where(some, vectors / np.where(some, lengths, 1.0), 0.0)
    return scaled


def squared_distances(vectors: FloatArray, centres: FloatArray) -> FloatArray:
    """d^2 between rows (m, d) and (n, d), (m, n) at least 0."""
    products = vectors @ centres.T
    squares = (vectors**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    distances: FloatArray = np.maximum(squares - 2 * products, 0.0)
    return distances


def _read_head(file: Path) -> tuple[tuple[str, ...], float]:
    try:
        head = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RouterFileError(file, str(error)) from error
    if not isinstance(head, dict) or head.get("version") != _VERSION:
        raise RouterFileError(file, f"is no router of version {_VERSION}")
    words, temperature = head.get("words"), head.get("temperature")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise RouterFileError(file, "words: must be a list of strings")
    if isinstance(temperature, bool) or not isinstance(temperature, int | float):
        raise RouterFileError(file, "temperature: must be a number")
    return tuple(words), float(temperature)


def _read_arrays(file: Path) -> tuple[FloatArray, FloatArray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = [arrays[name] for name in ("directions", "centres")]
    except _NO_ARRAYS as error:
        raise RouterFileError(file, str(error)) from error
    directions, centres = found
    if not all(_is_float(array) for array in found):
        raise RouterFileError(file, "must hold floating-point matrices")
    return directions.astype(np.float64), centres.astype(np.float64)


def _is_float(array: NDArray[np.generic]) -> bool:
    return bool(np.issubdtype(array.dtype, np.floating))
