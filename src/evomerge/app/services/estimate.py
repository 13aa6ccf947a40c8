"""What a job would cost, before anything is spent."""

from __future__ import annotations

import asyncio
from functools import partial

from evomerge.app.db.repositories import jobs
from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.merge_jobs import Estimate
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services import tokens
from evomerge.app.services.context import Context
from evomerge.app.services.merge_jobs import resolve
from evomerge.app.worker.errors import InputChangedError
from evomerge.app.worker.inputs import Data, metrics, read_data
from evomerge.app.worker.method import build_optimizer
from evomerge.evaluation import EvaluationError

# Winner, base, best expert and uniform average, each scored once on held-out data.
_CONTENDERS = 4


async def estimate(context: Context, spec: MergeJobSpec) -> Estimate:
    """Evaluations, examples, tokens and time of a job, at most.

    Raises:
        InvalidRequestError: the job would be refused, or a row does not fit into the context.
        ConflictError: a dataset's file is no longer what it was.
    """
    async with context.database.read() as session:
        inputs = await resolve(session, spec, context.settings.max_pool_experts)
        pace = await jobs.throughput(session, inputs.base_name)
    work = partial(_count, context, spec, inputs)
    evaluations, data, search, proof, exact = await asyncio.to_thread(work)
    total = evaluations * search + proof
    if spec.budget.tokens is not None:
        total = min(total, spec.budget.tokens + proof)
    seconds = None if pace is None else total / pace
    if seconds is not None and spec.budget.seconds is not None:
        seconds = min(seconds, spec.budget.seconds)
    reason = None if pace else f"no job over base {inputs.base!r} has been scored here yet"
    return Estimate(
        experts=len(inputs.experts),
        evaluations=evaluations,
        search_examples=len(data.search.examples),
        held_out_examples=len(data.held_out.examples),
        tokens=total,
        tokens_by="tokenizer" if exact else "bytes",
        usd=0.0,
        seconds=seconds,
        seconds_reason=reason,
    )


def _count(
    context: Context, spec: MergeJobSpec, inputs: JobInputs
) -> tuple[int, Data, int, int, bool]:
    """Evaluations, data, tokens of one of them, tokens of the proof, whether they are exact."""
    optimizer = build_optimizer(spec, len(inputs.experts))
    evaluations = optimizer.planned_evaluations
    if spec.budget.evaluations is not None:
        counted = spec.budget.evaluations + optimizer.baseline_evaluations
        evaluations = min(evaluations, counted)
    try:
        data = read_data(spec, inputs.datasets)
    except InputChangedError as error:
        raise ConflictError(str(error), param="objective.datasets", code=error.code) from error
    except EvaluationError as error:
        raise InvalidRequestError(str(error), param="objective.datasets") from error
    objective = spec.objective
    exact = tokens.counted(context.bases.folder(inputs.base_name), objective)
    count = exact or tokens.guessed(objective)
    search = tokens.total(data.search.examples, [objective.metric], count)
    proof = tokens.total(data.held_out.examples, metrics(spec), count)
    return evaluations, data, search, proof * _CONTENDERS, exact is not None
