"""Documents read by models of a forest, within a budget. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evomerge.app.schemas.forest_inputs import ElmInput
from evomerge.app.schemas.forest_specs import ReadingBudget
from evomerge.app.settings import Settings
from evomerge.app.worker.errors import StoppedError
from evomerge.app.worker.spending import BudgetReachedError
from evomerge.app.worker.teller import Teller
from evomerge.connectors.local.errors import ScoringCancelledError
from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.elms import Elm, Elms
from evomerge.connectors.local.forest.log_probs import text_rows, token_log_probs
from evomerge.connectors.local.forest.routing import Routing
from evomerge.connectors.local.rows import Row
from evomerge.evaluation.objective import FloatArray

_CACHE = "log_probs"


class Reading:
    """What models give to each token of texts; each reads each text once, over all attempts.

    For one thread.

    Args:
        models: one architecture and vocabulary, under names of their own.
        teller: the job's books.
        budget: what may be read, and for how long.
        settings: of the deployment.
        scratch: where numbers are kept.

    Attributes:
        tokens: scored so far, those that an earlier attempt has read among them, so that a budget
            ends every attempt at the same place.
        progress: what is told; others may add to it.
    """

    def __init__(
        self,
        models: Sequence[ElmInput],
        teller: Teller,
        budget: ReadingBudget,
        settings: Settings,
        scratch: Path,
    ) -> None:
        self._teller = teller
        self._budget = budget
        self._settings = settings
        self._cache = LogProbCache(scratch / _CACHE)
        self._elms = self._loadable([Elm(m.name, m.path, m.content_hash) for m in models])
        self._late = False
        self.tokens = 0
        self.progress: dict[str, object] = {"stage": "reading", "tokens": 0}

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """Texts as the models read them, all alike."""
        return text_rows(self._elms.any(), texts)

    def read(self, name: str, rows: Sequence[Row]) -> list[FloatArray]:
        """What one of the models gives to each token of each row, (T,) each.

        Raises:
            StoppedError: a stop was asked for.
            BudgetReachedError: the budget allows no more.
            EnsembleError, BaseFolderError: the model cannot be read.
        """
        return self._read(self._elms, self._elms.names.index(name), rows)

    def read_folder(self, folder: Path, rows: Sequence[Row]) -> list[FloatArray]:
        """The same of a checkpoint that is none of the models. Raises as `read`."""
        return self._read(self._loadable([Elm(folder.name, folder)]), 0, rows)

    def routed(self, routing: Routing, rows: Sequence[Row]) -> list[FloatArray]:
        """Log-weights of each row's scored tokens by a router, (clusters, T) each."""
        return routing.of_rows(self._elms.any().tokenizer, rows)

    def tell(self, **progress: object) -> None:
        """Note further progress. Raises StoppedError: a stop was asked for."""
        self.progress |= progress
        if self._teller.tell(self.progress):
            raise StoppedError

    def _read(self, elms: Elms, place: int, rows: Sequence[Row]) -> list[FloatArray]:
        wanted = sum(len(row.tokens) - row.start for row in rows)
        limit = self._budget.tokens
        if limit is not None and self.tokens + wanted > limit:
            raise BudgetReachedError("tokens")
        self.tell()
        try:
            found = token_log_probs(
                elms.model(place),
                rows,
                batch_tokens=self._settings.batch_tokens,
                cache=self._cache,
                stopped=self._stopped,
            )
        except ScoringCancelledError as error:
            if self._late:
                raise BudgetReachedError("seconds") from error
            raise StoppedError from error
        self.tokens += wanted
        self.progress["tokens"] = self.tokens
        return found

    def _stopped(self) -> bool:
        limit = self._budget.seconds
        self._late = limit is not None and self._teller.seconds >= limit
        return self._teller.tell(self.progress) or self._late

    def _loadable(self, elms: Sequence[Elm]) -> Elms:
        settings = self._settings
        return Elms(elms, device=settings.device, dtype=settings.dtype, threads=settings.threads)
