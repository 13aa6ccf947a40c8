"""Log-probabilities of tokens on the disk, a file an ELM. Needs no torch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from evomerge.connectors.local.forest.errors import LogProbCacheError
from evomerge.evaluation.objective import FloatArray

# Keys of one query; SQLite's own limit is far above.
_ASKED_AT_ONCE = 500
# Seconds that one who writes may keep others waiting.
_PATIENCE = 60.0
_TABLE = "CREATE TABLE IF NOT EXISTS log_probs (row TEXT PRIMARY KEY, data BLOB) WITHOUT ROWID"


class LogProbCache:
    """Keeps what was computed once, for any number of processes and threads.

    A write is there whole or not at all (SQLite's transactions). What is kept is float32, as it
    was computed.

    Args:
        folder: of the files; made when something is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, elm: str, rows: Sequence[str]) -> dict[str, FloatArray]:
        """Those of some rows that are known, (T,) float64 each.

        Args:
            elm: under what `put` kept them, see `log_probs.cache_owner`.
            rows: keys, see `log_probs.row_key`.

        Raises:
            LogProbCacheError: the file is damaged or cannot be read.
        """
        if not self._file(elm).is_file():
            return {}
        found = {}
        with self._open(elm) as database:
            asked = list(dict.fromkeys(rows))
            for begin in range(0, len(asked), _ASKED_AT_ONCE):
                some = asked[begin : begin + _ASKED_AT_ONCE]
                places = ",".join("?" * len(some))
                query = f"SELECT row, data FROM log_probs WHERE row IN ({places})"
                for row, data in database.execute(query, some):
                    found[row] = np.frombuffer(data, dtype="<f4").astype(np.float64)
        return found

    def put(self, elm: str, known: Mapping[str, FloatArray]) -> None:
        """Keep the log-probabilities (T,) of some rows.

        Raises:
            LogProbCacheError: the file is damaged or cannot be written.
        """
        if not known:
            return
        rows = [(row, values.astype("<f4").tobytes()) for row, values in known.items()]
        with self._open(elm) as database, database:
            database.executemany("INSERT OR IGNORE INTO log_probs VALUES (?, ?)", rows)

    def _file(self, elm: str) -> Path:
        return self._folder / f"{elm}.sqlite"

    @contextmanager
    def _open(self, elm: str) -> Iterator[sqlite3.Connection]:
        file = self._file(elm)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(file, timeout=_PATIENCE)) as database:
                with database:
                    database.execute(_TABLE)
                yield database
        except (sqlite3.Error, OSError) as error:
            raise LogProbCacheError(file, str(error)) from error
