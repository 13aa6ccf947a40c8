"""What records say: means, paired tests and intervals, by the project's own evaluation.

Two sources of chance are kept apart. The paired sign-flip test and the bootstrap of
`evomerge.evaluation` take the tasks as given and their rows as drawn, after seeds are averaged. The
hierarchical bootstrap draws tasks, seeds within them, and rows within them (both methods' alike),
and so speaks of tasks like these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from benchmarks.evidence.methods import BASE
from benchmarks.evidence.records import Record

from evomerge.evaluation import Interval, Objective, Report, compare, paired_p_value
from evomerge.evaluation.objective import FloatArray

LEVEL = 0.95
RESAMPLES = 4000
# (seeds, rows) of each task.
ByTask = Mapping[str, FloatArray]


@dataclass(frozen=True)
class Measured:
    """What methods came to on the same rows under the same seeds.

    Attributes:
        tasks: of which each counts the same.
        scores: of written answers, by method and task, (seeds, rows), 0 to 1.
        losses: cross-entropies likewise, nats a token.
        weights: answer tokens of each task's rows.
    """

    tasks: tuple[str, ...]
    scores: Mapping[str, ByTask]
    losses: Mapping[str, ByTask]
    weights: ByTask

    @property
    def methods(self) -> tuple[str, ...]:
        return tuple(self.scores)

    @property
    def objective(self) -> Objective:
        """The mean over tasks."""
        return Objective(tuple(self.weights[task].size for task in self.tasks))

    def task_score(self, method: str, task: str) -> float:
        """Mean score over seeds and rows."""
        return float(self.scores[method][task].mean())

    def score(self, method: str) -> float:
        """Mean over tasks of the mean score."""
        return float(np.mean([self.task_score(method, task) for task in self.tasks]))

    def loss(self, method: str) -> float:
        """Mean over tasks of the mean cross-entropy, nats a token."""
        weights = np.concatenate([self.weights[task] for task in self.tasks])
        return float(self.objective.means(self._rows(self.losses[method]), weights))

    def by_score(self, winner: str, seed: int = 0) -> Report:
        """Everyone against `winner`, losses being 1 - score; seeds are averaged first."""
        rows = {name: 1 - self._rows(own) for name, own in self.scores.items()}
        ones = np.ones(self.objective.examples)
        return compare(rows, ones, self.objective, winner=winner, seed=seed)

    def by_loss(self, winner: str, seed: int = 0) -> Report:
        """Everyone against `winner` by cross-entropy."""
        rows = {name: self._rows(own) for name, own in self.losses.items()}
        weights = np.concatenate([self.weights[task] for task in self.tasks])
        return compare(rows, weights, self.objective, winner=winner, seed=seed)

    def p_over_tasks(self, method: str, other: str) -> float | None:
        """Of both having equal scores, a pair a task; never below 2 / 2^tasks."""
        means = [
            np.array([self.task_score(name, task) for task in self.tasks])
            for name in (method, other)
        ]
        return paired_p_value(*means, np.ones(len(self.tasks)), seed=0)

    def _rows(self, own: ByTask) -> FloatArray:
        return np.concatenate([own[task].mean(axis=0) for task in self.tasks])


def measured(records: Iterable[Record]) -> Measured:
    """Records of some methods on the same cases and seeds.

    Raises:
        ValueError: a method lacks a case or seed, or was scored on other rows.
    """
    scores: dict[str, dict[str, list[FloatArray]]] = {}
    losses: dict[str, dict[str, list[FloatArray]]] = {}
    weights: dict[str, FloatArray] = {}
    for record in sorted(records, key=lambda record: record.seed):
        for task, part in zip(record.tasks, Objective(tuple(record.sizes)).slices, strict=True):
            own = np.array(record.weights[part])
            if not np.array_equal(weights.setdefault(task, own), own):
                raise ValueError(f"{record.method} on {task}: scored on other rows")
            for values, found in ((record.scores, scores), (record.losses, losses)):
                rows = found.setdefault(record.method, {}).setdefault(task, [])
                rows.append(np.array(values[part]))
    seeds = {len(rows) for own in scores.values() for rows in own.values()}
    if len(seeds) > 1 or any(set(own) != set(weights) for own in scores.values()):
        raise ValueError("the methods were not all measured on the same tasks and seeds")
    return Measured(tuple(weights), _stacked(scores), _stacked(losses), weights)


def _stacked(found: Mapping[str, Mapping[str, list[FloatArray]]]) -> dict[str, ByTask]:
    return {
        name: {task: np.stack(rows) for task, rows in own.items()} for name, own in found.items()
    }


def lead(found: Measured, method: str, other: str, seed: int = 0) -> tuple[float, Interval | None]:
    """How much the mean score of `method` is above that of `other`, hierarchical interval."""
    drawn = _resampled(found, (method, other), seed)
    return found.score(method) - found.score(other), _percentiles(drawn[method] - drawn[other])


def margin(
    found: Measured, method: str, other: str, seed: int = 0
) -> tuple[float, Interval | None] | None:
    """By how much the gain over base exceeds that of `other`, relative; None without such a gain.

    (score - base) / (other - base) - 1. Resamples in which the other gains nothing have no ratio:
    they count as the largest there is.
    """
    base = found.score(BASE)
    gain = found.score(other) - base
    if gain <= 0:
        return None
    drawn = _resampled(found, (method, other, BASE), seed)
    below = drawn[other] - drawn[BASE]
    ratio = (drawn[method] - drawn[BASE]) / np.where(below > 0, below, np.nan) - 1
    ratio = np.where(np.isnan(ratio), np.inf, ratio)
    return (found.score(method) - base) / gain - 1, _percentiles(ratio)


def _resampled(found: Measured, methods: Sequence[str], seed: int) -> dict[str, FloatArray]:
    """Mean scores (resamples,) of each method: tasks, seeds within them, rows within them."""
    rng = np.random.default_rng(seed)
    total = {name: np.zeros(RESAMPLES) for name in methods}
    tasks = len(found.tasks)
    times = rng.multinomial(tasks, np.full(tasks, 1 / tasks), size=RESAMPLES) / tasks
    for column, task in enumerate(found.tasks):
        seeds, rows = found.scores[methods[0]][task].shape
        # A task that is drawn twice is two tasks: one draw of its rows for both is a little too
        # few, and makes the interval a little wider.
        of_rows = rng.multinomial(rows, np.full(rows, 1 / rows), size=RESAMPLES) / rows
        of_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
        for name in methods:
            means = (of_seeds * (of_rows @ found.scores[name][task].T)).sum(axis=1)
            total[name] += times[:, column] * means
    return total


def _percentiles(drawn: FloatArray) -> Interval | None:
    tail = (1 - LEVEL) / 2
    # "nearest" never lies between a number and infinity.
    low, high = np.quantile(drawn, [tail, 1 - tail], method="nearest")
    return Interval(float(low), float(high), LEVEL)


@dataclass(frozen=True)
class Reached:
    """What reaching another search's quality cost, a share of its tokens for each case and seed.

    Attributes:
        shares: infinite where its quality was never reached.
    """

    shares: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.shares))

    @property
    def never(self) -> int:
        return sum(np.isinf(self.shares))


def tokens_to_reach(
    mine: Mapping[tuple[str, int], Record], theirs: Mapping[tuple[str, int], Record], column: int
) -> Reached:
    """Tokens that one search needs to have the other's last loss.

    Args:
        mine, theirs: by case and seed.
        column: of the curve: 1 for search losses, 2 for held-out ones.
    """
    shares = []
    for place, other in theirs.items():
        wanted = other.curve[-1][column]
        needed = (point[0] for point in mine[place].curve if point[column] <= wanted)
        shares.append(next(needed, np.inf) / other.tokens)
    return Reached(tuple(shares))
