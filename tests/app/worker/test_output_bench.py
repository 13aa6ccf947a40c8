"""Candidates over answers that are there, and what the experts' prices do to their losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.support.outputs import ALTERNATIVES, labelled

from evomerge.app.outputs import KnownExpert
from evomerge.app.schemas.api_experts import ApiDefinition
from evomerge.app.worker.gathering import Answered, Gathered
from evomerge.app.worker.inputs import Side
from evomerge.app.worker.output_bench import OutputBench
from evomerge.connectors.output.task import Task
from evomerge.connectors.question import Token
from evomerge.evaluation.example import Example
from evomerge.evaluation.objective import Objective
from evomerge.optimizers.candidate import one_hot, uniform

TASK = Task("choice", "cross_entropy")
EXAMPLES = tuple(Example("Is it?", "no", ("yes", "no"), row=row) for row in range(3))
HELD_OUT = tuple(replace(one, row=one.row) for one in EXAMPLES)
SAID = labelled(Token("B", None, (("B", np.log(0.8)), ("A", np.log(0.1)))))
# The cheap one, the dear one, both.
CANDIDATES = [one_hot(0, 2), one_hot(1, 2), uniform(2)]


def known(name: str, usd: float) -> KnownExpert:
    price = {"input": usd, "output": usd}
    asked = {"base_url": "http://127.0.0.1:9/v1", "model": name, "price": price}
    return KnownExpert(name, ApiDefinition.model_validate(asked), ALTERNATIVES)


def bench(price: float) -> OutputBench:
    """Two experts that say the same, the second for three times as much."""
    given = ((((SAID,),) * len(EXAMPLES)),) * 2
    search, held_out = (
        Answered(Side(rows, Objective((len(rows),))), given) for rows in (EXAMPLES, HELD_OUT)
    )
    experts = (known("cheap", 1.0), known("dear", 3.0))
    return OutputBench(TASK, Gathered(experts, search, held_out), head=0.1, price=price)


async def means(bench: OutputBench, rows: tuple[Example, ...]) -> list[float]:
    scores = await bench.evaluator("cross_entropy").score(CANDIDATES, rows)
    found: list[float] = scores.means().tolist()
    return found


async def test_a_price_makes_the_cheap_ensemble_win_a_tie() -> None:
    [loss, *others] = await means(bench(0.0), EXAMPLES)
    assert others == pytest.approx([loss, loss])
    assert await means(bench(0.2), EXAMPLES) == pytest.approx(
        [loss + 0.2 * share for share in (0.25, 0.75, 1.0)]
    )


async def test_a_proof_knows_no_price() -> None:
    assert HELD_OUT is not EXAMPLES
    assert await means(bench(0.2), HELD_OUT) == await means(bench(0.0), HELD_OUT)
