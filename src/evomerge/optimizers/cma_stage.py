"""CMA-ES over one vector within bounds: what each stage of Evo-Merging runs (section 3)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from evomerge.optimizers.blas import one_blas_thread
from evomerge.optimizers.candidate import FloatArray
from evomerge.optimizers.parameters import default_population, whole_generations

with warnings.catch_warnings():
    # pycma warns on import where matplotlib is missing; nothing is plotted here.
    warnings.simplefilter("ignore")
    import cma
    from cma.sigma_adaptation import CMAAdaptSigmaCSA

# The endings of pycma that mean that nothing can move any more. It is told ranks (see `_ranks`),
# so that its other endings, which look at losses, mean nothing here.
_STUCK = frozenset({"tolx", "noeffectaxis", "noeffectcoord", "tolconditioncov"})


@dataclass(frozen=True)
class CmaParameters:
    """One CMA-ES run.

    Attributes:
        name: the stage, for messages.
        evaluations: points that may be scored; only whole generations are asked.
        sigma: first standard deviation of every coordinate; pycma cuts it at a third of the
            bounds' range.
        low, high: bounds of every coordinate; no point outside is ever asked.
        l1: weight of the penalty on the mean of |x|.
        population: points a generation; None for 4 + floor(3 ln dimension).
        patience: generations without a better best that end the run; None for never.
        diagonal_above: more dimensions than this get a diagonal covariance.
    """

    name: str
    evaluations: int
    sigma: float
    low: float
    high: float
    l1: float
    population: int | None = None
    patience: int | None = None
    diagonal_above: int = 200

    def population_for(self, dimension: int) -> int:
        return self.population or default_population(dimension)

    def generations_for(self, dimension: int) -> int:
        """Generations that fit wholly into the budget.

        Raises:
            InvalidParameterError: not even one fits.
        """
        name = f"{self.name}.evaluations"
        return whole_generations(name, self.evaluations, self.population_for(dimension))


class CmaStage:
    """Minimises loss(x) + l1 * mean|x| from `start`, ask/tell, over pycma.

    Args:
        parameters: bounds, budget and so on.
        start: (dimension,) float64 within the bounds.
        random: source of every draw; pycma's own default is numpy's global generator.

    Raises:
        InvalidParameterError: the budget is smaller than one population.
    """

    def __init__(
        self, parameters: CmaParameters, start: FloatArray, random: np.random.RandomState
    ) -> None:
        self._parameters = parameters
        self._dimension = len(start)
        self._generations = parameters.generations_for(self._dimension)
        self._population = parameters.population_for(self._dimension)
        self._generation = 0
        self._best_objective = np.inf
        self._best_generation = -1
        self._stuck = False
        self._points: list[FloatArray] = []  # as pycma made them: it knows them by identity
        self._injected = 0
        self._untold = False
        with one_blas_thread():
            self._strategy = cma.CMAEvolutionStrategy(
                _padded(start), self._parameters.sigma, self._options(random)
            )

    def _options(self, random: np.random.RandomState) -> dict[str, object]:
        return {
            "bounds": [self._parameters.low, self._parameters.high],
            "popsize": self._population,
            "CMA_diagonal": self._dimension > self._parameters.diagonal_above,
            # True is pycma's own choice by dimension. From 300 on that is two-point adaptation,
            # whose two points and the mirrored ones of populations below 6 do not fit together.
            "AdaptSigma": True if self._population >= 6 else CMAAdaptSigmaCSA,
            "randn": random.randn,
            "seed": np.nan,  # else pycma seeds the global generator, for 0 from the clock
            "verbose": -10,  # silent, writes no file, obeys no file of signals
        }

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def done(self) -> bool:
        return self._stuck or self._generation >= self._generations or self._impatient

    @property
    def _impatient(self) -> bool:
        patience = self._parameters.patience
        return patience is not None and self._generation - self._best_generation > patience

    def ask(self) -> FloatArray:
        """The next population, (population, dimension) float64 within the bounds."""
        with one_blas_thread():
            self._points = self._drawn_again() if self._untold else self._drawn()
        population: FloatArray = np.array(self._points)[:, : self._dimension]
        # The bounds are promised here, whatever rounding pycma's way into them has.
        return population.clip(self._parameters.low, self._parameters.high)

    def _drawn(self) -> list[FloatArray]:
        before = self._strategy.number_of_injections_delivered
        points: list[FloatArray] = self._strategy.ask()
        self._injected = self._strategy.number_of_injections_delivered - before
        return points

    def _drawn_again(self) -> list[FloatArray]:
        """A population from the distribution that the last one came from.

        Its first points may be no draws but chosen by pycma (mirrors in populations below 6, the
        two compared by the step-size rule of 300 dimensions and more). It hands them out once an
        iteration and wants them told, so they are asked again.
        """
        kept = self._points[: self._injected]
        return kept + [self._strategy.ask(1)[0] for _ in range(self._population - len(kept))]

    def tell(self, population: FloatArray, losses: FloatArray) -> FloatArray:
        """Learn the losses, (population,), of the population that `ask` returned.

        Returns:
            The objectives, (population,): losses plus penalty; not finite where a loss is not.
            A population without any finite loss teaches nothing and is drawn again.
        """
        objectives: FloatArray = losses + self._parameters.l1 * np.abs(population).mean(axis=1)
        usable = np.isfinite(objectives)
        self._untold = not usable.any()
        if usable.any():
            with one_blas_thread():
                self._strategy.tell(self._points, _ranks(objectives))
                self._stuck = not _STUCK.isdisjoint(self._strategy.stop())
            lowest = float(objectives[usable].min())
            if lowest < self._best_objective:
                self._best_objective, self._best_generation = lowest, self._generation
        self._generation += 1
        return objectives


def _padded(start: FloatArray) -> FloatArray:
    """`start`, with a second coordinate that nobody reads if it has one only.

    pycma refuses one dimension. A coordinate that no loss depends on is selected at random and
    leaves the search of the other as it is.
    """
    return np.repeat(start, 2) if len(start) == 1 else start.copy()


def _ranks(objectives: FloatArray) -> list[float]:
    """Place of each objective from the lowest, broken ones last, equals in the order asked.

    CMA-ES reads nothing but the order. Ranks keep NaN and infinity out of pycma (which would
    take a NaN for a median one), and make the order of equals the same on every processor,
    which pycma's own sort does not.
    """
    usable = np.where(np.isfinite(objectives), objectives, np.inf)
    ranks = np.empty(len(objectives))
    ranks[np.argsort(usable, kind="stable")] = np.arange(len(objectives))
    places: list[float] = ranks.tolist()
    return places
