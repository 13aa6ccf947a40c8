"""What a job over a forest would take, before anything is done."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evomerge.app.db.repositories import jobs
from evomerge.app.schemas.forest_inputs import CorpusInput, ForestInput, ForestJobInputs
from evomerge.app.schemas.forest_jobs import ForestJobEstimate
from evomerge.app.schemas.forest_specs import (
    AverageSpec,
    BranchTrainSpec,
    ClusterSpec,
    EvaluateSpec,
    ForestJobSpec,
    TrainSeedSpec,
)
from evomerge.app.services.context import Context
from evomerge.app.services.forest_job_checks import check_training, recipe_of
from evomerge.app.services.forest_job_corpora import read_corpora
from evomerge.app.services.forest_jobs import resolve

_FLOAT, _DOUBLE = 4, 8
_BYTES_A_TOKEN = 4
# Weights and both moments of AdamW; two checkpoints are kept while a third is written.
_STATES, _CHECKPOINTS = 3, 3
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


async def estimate(context: Context, spec: ForestJobSpec) -> ForestJobEstimate:
    """Tokens, steps, bytes and seconds of a job, at most. Reads its corpora.

    Raises:
        InvalidRequestError, ConflictError: the job would be refused.
    """
    check_training(spec.root)
    corpora = await read_corpora(context, spec.root)
    async with context.database.read() as session:
        inputs = await resolve(context, session, spec.root, corpora)
        pace = await jobs.training_pace(session, inputs.parameters)
    asked = spec.root
    if isinstance(asked, TrainSeedSpec | BranchTrainSpec):
        return _training(asked, inputs, pace)
    if inputs.forest is None:
        raise AssertionError("a job that trains no seed is over a forest")
    if isinstance(asked, ClusterSpec):
        return _clustering(asked, inputs.forest, corpora)
    if isinstance(asked, AverageSpec):
        return _average(asked, inputs.forest, corpora)
    return _evaluation(asked, inputs.forest, corpora)


def _training(
    spec: TrainSeedSpec | BranchTrainSpec, inputs: ForestJobInputs, pace: float | None
) -> ForestJobEstimate:
    recipe, budget = recipe_of(spec.recipe), spec.budget
    steps = min(recipe.steps, budget.steps or recipe.steps)
    if budget.tokens is not None:
        steps = min(steps, budget.tokens // recipe.batch_tokens)
    tokens = steps * recipe.batch_tokens
    weights = inputs.parameters * _FLOAT
    seconds = None if pace is None else tokens / pace
    if seconds is not None and budget.seconds is not None:
        seconds = min(seconds, budget.seconds)
    # First weights and the ELM before it is moved into place; tokens are kept as numbers.
    scratch = (_STATES * _CHECKPOINTS + 2) * weights
    scratch += sum(corpus.bytes for corpus in inputs.corpora)
    return ForestJobEstimate(
        type=spec.type,
        parameters=inputs.parameters,
        steps=steps,
        tokens=tokens,
        tokens_by="recipe",
        disk_bytes=weights * (_STATES if recipe.keep_optimizer else 1),
        scratch_bytes=scratch,
        seconds=seconds,
        seconds_reason=None
        if pace
        else f"no model of {inputs.parameters} parameters has been trained here yet",
    )


def _clustering(
    spec: ClusterSpec, forest: ForestInput, corpora: Sequence[CorpusInput]
) -> ForestJobEstimate:
    # The documents once more, and a row of the router for each word and each cluster.
    router = (spec.words + spec.clusters) * spec.dimensions * _DOUBLE
    return ForestJobEstimate(
        type=spec.type,
        parameters=forest.parameters,
        steps=0,
        tokens=0,
        tokens_by="bytes",
        disk_bytes=sum(corpus.bytes for corpus in corpora) + router,
        scratch_bytes=0,
        seconds=None,
        seconds_reason="how fast documents are clustered is not known before",
    )


def _average(
    spec: AverageSpec, forest: ForestInput, corpora: Sequence[CorpusInput]
) -> ForestJobEstimate:
    share = spec.shares.dev_share
    tokens = len(forest.elms) * sum(_tokens(corpus, share) for corpus in corpora)
    item = _DTYPE_BYTES.get(spec.dtype or "", 0)
    disk = forest.parameters * item if item else forest.bytes
    return _reading(spec, forest, tokens, disk, disk)


def _evaluation(
    spec: EvaluateSpec, forest: ForestInput, corpora: Sequence[CorpusInput]
) -> ForestJobEstimate:
    shares = spec.shares
    # The seed, the ELMs and the averages; ensembles and the argmax are of what ELMs have read.
    averages = [name for name in spec.averages if name != "argmax"]
    reading = 1 + len(forest.elms) + len(averages)
    dev = len(forest.elms) * sum(_tokens(corpus, shares.dev_share) for corpus in corpora)
    test = reading * sum(_tokens(corpus, shares.test_share) for corpus in corpora)
    scratch = len(averages) * forest.bytes + (dev + test) * _FLOAT
    return _reading(spec, forest, dev + test, 0, scratch)


def _reading(
    spec: AverageSpec | EvaluateSpec, forest: ForestInput, tokens: int, disk: int, scratch: int
) -> ForestJobEstimate:
    if spec.budget.tokens is not None:
        tokens = min(tokens, spec.budget.tokens)
    return ForestJobEstimate(
        type=spec.type,
        parameters=forest.parameters,
        steps=0,
        tokens=tokens,
        tokens_by="bytes",
        disk_bytes=disk,
        scratch_bytes=scratch,
        seconds=spec.budget.seconds,
        seconds_reason="how fast these models read is not known before",
    )


def _tokens(corpus: CorpusInput, share: float) -> int:
    """Of the share of a corpus that is set aside, which holds on average only."""
    return math.ceil(corpus.bytes * share / _BYTES_A_TOKEN)
