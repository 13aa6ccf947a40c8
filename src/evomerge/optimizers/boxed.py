"""What searches have in common that look for beta within bounds, every alpha one."""

from __future__ import annotations

from collections.abc import Callable

from evomerge.optimizers.candidate import Candidate, FloatArray, base
from evomerge.optimizers.errors import InvalidParameterError
from evomerge.optimizers.parameters import (
    check_at_least,
    check_bounds,
    check_pool,
    check_seed,
    whole_generations,
)
from evomerge.optimizers.preselection import Preselection
from evomerge.optimizers.probe import Probe
from evomerge.optimizers.staged import Bests, RunningStage, StagedSearch, StagePlan, VectorStage

DEFAULT_POPULATION = 20

# Makes the search out of its population, its generations and the number of those who take part.
MakeStage = Callable[[int, int, int], VectorStage]


class BoxedSearch(StagedSearch):
    """One stage over beta in [low, high]^(G K) of the K who take part, after a probe if asked for.

    Args:
        experts: size N of the pool, at least 1.
        seed: any integer in [0, 2^32).
        groups: layer groups G.
        evaluations: candidates that may be scored; only whole generations are asked.
        population: candidates a generation, at least 1; None for 20.
        low, high: bounds of beta.
        probe: ask every expert alone first.
        probe_competes: whether a probed expert may be the winner.
        selection: who takes part; None for all, of the others beta is zero.
        name: of the stage.
        make: the stage's search; called when the stage begins.

    Raises:
        InvalidParameterError: an argument is outside its range, the budget is smaller than one
            population, or who takes part is to be found out without a probe.
    """

    def __init__(
        self,
        experts: int,
        *,
        seed: int,
        groups: int,
        evaluations: int,
        population: int | None,
        low: float,
        high: float,
        probe: bool,
        selection: Preselection | None,
        name: str,
        make: MakeStage,
        probe_competes: bool = True,
    ) -> None:
        check_pool(experts, groups)
        check_seed(seed)
        check_bounds("", low, high)
        population = DEFAULT_POPULATION if population is None else population
        check_at_least("population", population, 1)
        generations = whole_generations("evaluations", evaluations, population)
        chosen = selection or Preselection(experts)
        if chosen.needs_losses and not probe:
            raise InvalidParameterError("top_k", chosen.top_k, "needs probe=True, or an order")
        alone = Probe(experts)

        def begin(bests: Bests) -> RunningStage:
            members = chosen.members(alone.losses)

            def candidate(vector: FloatArray) -> Candidate:
                found = base(experts, groups)
                found.beta[:, members] = vector.reshape(groups, chosen.size)
                return found

            return RunningStage(make(population, generations, chosen.size), candidate)

        probes = [alone.plan(groups, competes=probe_competes)] if probe else []
        super().__init__([*probes, StagePlan(name, generations * population, True, begin)])
