"""LoRAHub's search (arXiv 2307.13269): nevergrad's NGOpt over beta, one candidate at a time.

What NGOpt is depends on the budget and the dimension: it chooses among nevergrad's optimizers.
Needs nevergrad, which is imported when a search begins.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np

from evomerge.optimizers.boxed import BoxedSearch
from evomerge.optimizers.candidate import FloatArray
from evomerge.optimizers.errors import InvalidParameterError
from evomerge.optimizers.parameters import check_penalty
from evomerge.optimizers.preselection import Preselection
from evomerge.optimizers.staged import VectorStage

LORAHUB = "lorahub"
EVALUATIONS = 40
L1 = 0.05
# Told at least for what broke: nevergrad knows no losses that are not finite.
_BROKEN = 1e6

T = TypeVar("T")


class NgoptStage:
    """NGOpt within bounds, begun at zero.

    Args:
        evaluations: that NGOpt may plan with; it is asked as often.
        l1: weight of the penalty on the mean of |beta|.
        seed: of every draw.
    """

    def __init__(
        self, dimension: int, evaluations: int, bounds: tuple[float, float], l1: float, seed: int
    ) -> None:
        self._evaluations = evaluations
        self._l1 = l1
        self._worst = _BROKEN
        self._generation = 0
        self._asked: Any = None
        self._search = _quietly(lambda: _ngopt(dimension, evaluations, bounds, seed))

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def done(self) -> bool:
        return self._generation >= self._evaluations

    def ask(self) -> FloatArray:
        self._asked = _quietly(self._search.ask)
        return np.array(self._asked.value, dtype=np.float64)[None]

    def tell(self, population: FloatArray, losses: FloatArray) -> FloatArray:
        objectives: FloatArray = losses + self._l1 * np.abs(population).mean(axis=1)
        told = float(objectives[0])
        if np.isfinite(told):
            self._worst = max(self._worst, told)
        else:
            told = self._worst
        _quietly(lambda: self._search.tell(self._asked, told))
        self._generation += 1
        return objectives


class LoraHub(BoxedSearch):
    """beta by NGOpt with a penalty on its size; see `BoxedSearch`.

    The experts alone serve the best-expert baseline and a preselection, and do not compete. LoRAHub
    takes the least penalised loss; the winner here is the least loss, as of every search.

    Args:
        l1: weight of the penalty on the mean of |beta|, at least 0.

    Raises:
        InvalidParameterError: an argument is outside its range, or nevergrad is not installed.
    """

    def __init__(
        self,
        experts: int,
        *,
        seed: int,
        groups: int = 1,
        evaluations: int = EVALUATIONS,
        low: float = -1.5,
        high: float = 1.5,
        l1: float = L1,
        probe: bool = False,
        selection: Preselection | None = None,
    ) -> None:
        check_penalty("l1", l1)
        if not low <= 0.0 <= high:
            raise InvalidParameterError("low", low, f"zero must lie between it and high={high!r}")
        if find_spec("nevergrad") is None:
            reason = "needs nevergrad: pip install 'evo-merging[baselines]'"
            raise InvalidParameterError("name", LORAHUB, reason)

        def make(population: int, generations: int, members: int) -> VectorStage:
            return NgoptStage(groups * members, generations, (low, high), l1, seed)

        super().__init__(
            experts,
            seed=seed,
            groups=groups,
            evaluations=evaluations,
            population=1,
            low=low,
            high=high,
            probe=probe,
            probe_competes=False,
            selection=selection,
            name=LORAHUB,
            make=make,
        )


def _ngopt(dimension: int, evaluations: int, bounds: tuple[float, float], seed: int) -> Any:
    import nevergrad

    low, high = bounds
    start = nevergrad.p.Array(init=[0.0] * dimension)
    # What nevergrad takes where both bounds are given at once.
    start.set_mutation(sigma=np.full(dimension, (high - low) / 6))
    # Before anything draws: left alone, it takes a seed of numpy's global generator.
    start.random_state = np.random.RandomState(seed)
    start.set_bounds([low] * dimension, [high] * dimension)
    return nevergrad.optimizers.NGOpt(parametrization=start, budget=evaluations)


def _quietly(work: Callable[[], T]) -> T:
    """Do work of nevergrad's on a daemon thread, its warnings unsaid.

    NGOpt may run a whole optimizer on a thread of its own, which waits for the next loss for ever.
    A thread is a daemon if the one that starts it is; otherwise a search that was left unfinished
    would keep the process from ending.
    """
    done: list[T] = []
    failed: list[Exception] = []

    def run() -> None:
        try:
            done.append(work())
        except Exception as error:  # noqa: BLE001  # raised below, on the thread that asked
            failed.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join()
    if failed:
        raise failed[0]
    return done[0]
