"""Evaluators for the contract suite: each name makes one, with examples and candidates for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tests.support.elms import make_elm
from tests.support.fake_bmm import FakeBmm
from tests.support.loopback import serving
from tests.support.remote import REMOTE, calling, server
from tests.support.tiny import make_adapter, make_base
from tests.support.tiny_model import TinyModel, read_factors

from evomerge.connectors.base import Evaluator
from evomerge.connectors.bmm import BmmEvaluator, their_dataset
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.checkpoint_evaluator import CheckpointEvaluator
from evomerge.connectors.local.evaluator import LocalEvaluator, Scoring
from evomerge.connectors.local.merged_weights import MergedWeights
from evomerge.connectors.local.rule_evaluator import RuleEvaluator
from evomerge.connectors.remote import RemoteEvaluator
from evomerge.evaluation.example import Example
from evomerge.merging.checkpoint.files import read_checkpoint
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.lora.pool import stack_folders
from evomerge.merging.lora.space import LoraSpace
from evomerge.merging.operators.rules import DareTies
from evomerge.merging.rules.space import RuleSpace
from evomerge.merging.rules.vectors import LoraVectors
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

EXAMPLES = (
    Example("Berlin is in", "Germany", choices=("Spain", "Germany"), row=1),
    Example("a", "b", choices=("b", "cde"), row=2),
    Example("The capital of the largest country of Europe is", "M", choices=("M", "P"), row=3),
)
POPULATION = (base(2), one_hot(0, 2), uniform(2), one_hot(1, 2), one_hot(0, 2))
# Two and a half times what one candidate needs for the examples.
BATCH_TOKENS = {"cross_entropy": 185, "choice_accuracy": 375, "token_f1": 170}


@dataclass(frozen=True)
class Subject:
    """An evaluator under test, with what it can score."""

    evaluator: Evaluator
    candidates: tuple[Candidate, ...]
    examples: tuple[Example, ...] = EXAMPLES
    # What its usage counts: a holder of data tells nobody how many tokens it has read.
    counts: Literal["tokens", "requests"] = "tokens"


# A subject for one event loop; what is heavy about it is made once, around all of them.
Fresh = Callable[[], AbstractAsyncContextManager[Subject]]


@contextmanager
def local(metric: str, folder: Path) -> Iterator[Fresh]:
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

    @asynccontextmanager
    async def fresh() -> AsyncIterator[Subject]:
        yield Subject(evaluator, POPULATION)

    yield fresh


@contextmanager
def checkpoint(metric: str, folder: Path) -> Iterator[Fresh]:
    """Two ELMs of one seed, whose candidates run one after the other."""
    seed = make_base(folder / "seed")
    elms = [make_elm(folder / f"elm{n}", seed, n, strength=0.1) for n in range(2)]
    space = CheckpointSpace(read_checkpoint(seed), [read_checkpoint(elm) for elm in elms])
    evaluator = CheckpointEvaluator(
        MergedWeights(load_base(seed, threads=1), space),
        metric,
        batch_tokens=BATCH_TOKENS[metric],
        max_new_tokens=3,
    )

    @asynccontextmanager
    async def fresh() -> AsyncIterator[Subject]:
        yield Subject(evaluator, POPULATION)

    yield fresh


@contextmanager
def rule(metric: str, folder: Path) -> Iterator[Fresh]:
    """Experts alone run beside each other; what a rule makes of two runs by itself."""
    weights = make_base(folder / "base")
    pool = stack_folders([make_adapter(folder / f"e{n}", weights, seed=n) for n in range(2)])
    loaded = load_base(weights, threads=1)
    scoring = Scoring(batch_tokens=BATCH_TOKENS[metric], max_new_tokens=3)
    space = RuleSpace(read_checkpoint(weights), LoraVectors(pool), DareTies(), 7)
    evaluator = RuleEvaluator(
        CheckpointEvaluator(MergedWeights(loaded, space), metric, **scoring),
        LocalEvaluator(loaded, LoraSpace(pool, "exact"), metric, **scoring),
    )

    @asynccontextmanager
    async def fresh() -> AsyncIterator[Subject]:
        yield Subject(evaluator, POPULATION)

    yield fresh


@contextmanager
def remote(provider: str, metric: str, folder: Path) -> Iterator[Fresh]:
    """A fake server of the provider, which really computes."""
    with REMOTE[provider](folder) as ground:

        @asynccontextmanager
        async def fresh() -> AsyncIterator[Subject]:
            async with calling() as caller:
                evaluator = RemoteEvaluator(ground.merger(caller), metric)
                yield Subject(evaluator, POPULATION, ground.examples)

        yield fresh


@contextmanager
def bmm(folder: Path) -> Iterator[Fresh]:
    """A fake session server, which really computes; its datasets are the examples."""
    weights = make_base(folder / "base")
    adapters = [make_adapter(folder / f"e{n}", weights, seed=n) for n in range(2)]
    texts = {"own": "Berlin is in Germany", "other": "a b", "third": "Moscow"}
    fake = FakeBmm(TinyModel(weights), [read_factors(one) for one in adapters], texts)
    theirs = tuple(map(their_dataset, ("", "other", "third")))
    with serving(fake.app()) as url:

        @asynccontextmanager
        async def fresh() -> AsyncIterator[Subject]:
            async with calling() as caller:
                evaluator = BmmEvaluator(server(caller, "bmm", url), "films", 2)
                yield Subject(evaluator, POPULATION, theirs, "requests")

        yield fresh


SUBJECTS: Mapping[str, Callable[[Path], AbstractContextManager[Fresh]]] = {
    "bmm": bmm,
    **{f"local-{metric}": partial(local, metric) for metric in BATCH_TOKENS},
    **{f"checkpoint-{metric}": partial(checkpoint, metric) for metric in BATCH_TOKENS},
    **{f"rule-{metric}": partial(rule, metric) for metric in BATCH_TOKENS},
    **{
        f"{provider}-{metric}": partial(remote, provider, metric)
        for provider in REMOTE
        for metric in ("cross_entropy", "choice_accuracy")
    },
}
