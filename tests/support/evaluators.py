"""Evaluators for the contract suite: each name makes one, with examples and candidates for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.tiny import make_adapter, make_base

from evomerge.connectors.base import Evaluator
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.evaluation.example import Example
from evomerge.merging.lora.pool import stack_folders
from evomerge.merging.lora.space import LoraSpace
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

EXAMPLES = (
    Example("Berlin is in", "Germany", choices=("Spain", "Germany"), row=1),
    Example("a", "b", choices=("b", "cde"), row=2),
    Example("The capital of the largest country of Europe is", "M", choices=("M", "P"), row=3),
)
# Two and a half times what one candidate needs for the examples.
BATCH_TOKENS = {"cross_entropy": 185, "choice_accuracy": 375, "token_f1": 170}


@dataclass(frozen=True)
class Subject:
    """An evaluator under test, with what it can score."""

    evaluator: Evaluator
    candidates: tuple[Candidate, ...]
    examples: tuple[Example, ...] = EXAMPLES


def local(metric: str, folder: Path) -> Subject:
    """Two candidates fit beside each other, so that a population of five is cut."""
    weights = make_base(folder / "base")
    pool = stack_folders([make_adapter(folder / f"e{n}", weights, seed=n) for n in range(2)])
    loaded = load_base(weights, threads=1)
    evaluator = LocalEvaluator(
        loaded,
        LoraSpace(pool, "exact"),
        metric,
        batch_tokens=BATCH_TOKENS[metric],
        max_new_tokens=3,
    )
    population = (base(2), one_hot(0, 2), uniform(2), one_hot(1, 2), one_hot(0, 2))
    return Subject(evaluator, population)


SUBJECTS: Mapping[str, Callable[[Path], Subject]] = {
    f"local-{metric}": partial(local, metric) for metric in BATCH_TOKENS
}
