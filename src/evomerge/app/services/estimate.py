"""What a job would cost, before anything is spent."""

from __future__ import annotations

import asyncio

from evomerge.app.db.repositories import jobs
from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.merge_jobs import Estimate
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services import tokens
from evomerge.app.services.context import Context
from evomerge.app.services.foreseen import NO_CALLS, foreseen
from evomerge.app.services.merge_jobs import resolve
from evomerge.app.services.remote import check_place
from evomerge.app.services.remote_estimate import foreseen_remote
from evomerge.app.worker.errors import InputChangedError
from evomerge.app.worker.inputs import Data, metrics, read_data
from evomerge.app.worker.method import build_optimizer
from evomerge.evaluation import EvaluationError

_LOCAL = ("lora", "checkpoint")
# Winner, base, best expert and uniform average, each scored once on held-out data.
_CONTENDERS = 4
# Over a forest, also the average by the posterior and that of its largest; the ensemble of all
# reads with every ELM.
_AVERAGES = 2


async def estimate(context: Context, spec: MergeJobSpec) -> Estimate:
    """Evaluations, examples, tokens, calls, money and time of a job, at most.

    Raises:
        InvalidRequestError: the job would be refused, or a row does not fit into the context.
        ConflictError: a dataset's file is no longer what it was.
    """
    check_place(spec, context.settings)
    async with context.database.read() as session:
        inputs = await resolve(session, spec, context.settings.max_pool_experts)
    data = await asyncio.to_thread(_data, spec, inputs)
    if spec.space in _LOCAL or inputs.seed is not None:
        return await _local(context, spec, inputs, data)
    sizes = _sizes(spec, inputs, data)
    if spec.remote is not None:
        calls = foreseen_remote(spec, spec.remote, data, sizes["evaluations"])
    else:
        calls = await foreseen(context, spec, inputs, data)
    return Estimate(
        **sizes,
        tokens=0,
        tokens_by="bytes",
        **vars(calls),
        seconds=spec.budget.seconds,
        seconds_reason="how fast the experts' APIs answer is not known",
    )


async def _local(context: Context, spec: MergeJobSpec, inputs: JobInputs, data: Data) -> Estimate:
    """Of a job whose candidates run here."""
    async with context.database.read() as session:
        if inputs.seed is None:
            pace = await jobs.throughput(session, "base", inputs.base_name)
        else:
            pace = await jobs.throughput(session, "pool_id", inputs.pool_id)
    sizes = _sizes(spec, inputs, data)
    search, proof, exact = await asyncio.to_thread(_count, context, spec, inputs, data)
    total = _total(spec, inputs, sizes["evaluations"], search, proof)
    seconds = None if pace is None else total / pace
    if seconds is not None and spec.budget.seconds is not None:
        seconds = min(seconds, spec.budget.seconds)
    over = f"base {inputs.base!r}" if inputs.seed is None else f"forest {inputs.seed.forest!r}"
    reason = None if pace else f"no job over {over} has been scored here yet"
    return Estimate(
        **sizes,
        tokens=total,
        tokens_by="tokenizer" if exact else "bytes",
        **vars(NO_CALLS),
        seconds=seconds,
        seconds_reason=reason,
    )


def _total(spec: MergeJobSpec, inputs: JobInputs, evaluations: int, search: int, proof: int) -> int:
    """Tokens that models read, at most."""
    models = len(inputs.experts)
    if spec.space == "output":
        # The seed and the ELMs read everything once, and candidates nothing.
        return (1 + models) * (search + proof)
    proof *= _CONTENDERS if inputs.seed is None else _CONTENDERS + _AVERAGES + models
    if inputs.seed is not None:
        # To know the posterior, each ELM reads some of the search's rows.
        proof += models * search
    total = evaluations * search + proof
    return total if spec.budget.tokens is None else min(total, spec.budget.tokens + proof)


def _sizes(spec: MergeJobSpec, inputs: JobInputs, data: Data) -> dict[str, int]:
    names = [expert.name for expert in inputs.experts]
    optimizer = build_optimizer(spec, len(names), names=names)
    evaluations = optimizer.planned_evaluations
    if spec.budget.evaluations is not None:
        counted = spec.budget.evaluations + optimizer.baseline_evaluations
        evaluations = min(evaluations, counted)
    return {
        "experts": len(inputs.experts),
        "evaluations": evaluations,
        "search_examples": len(data.search.examples),
        "held_out_examples": len(data.held_out.examples),
    }


def _data(spec: MergeJobSpec, inputs: JobInputs) -> Data:
    try:
        return read_data(spec, inputs.datasets)
    except InputChangedError as error:
        raise ConflictError(str(error), param="objective.datasets", code=error.code) from error
    except EvaluationError as error:
        raise InvalidRequestError(str(error), param="objective.datasets") from error


def _count(
    context: Context, spec: MergeJobSpec, inputs: JobInputs, data: Data
) -> tuple[int, int, bool]:
    """Tokens of one evaluation, tokens of one contender's proof, whether they are exact."""
    objective = spec.objective
    folder = context.bases.folder(inputs.base_name) if inputs.seed is None else inputs.seed.path
    exact = tokens.counted(folder, objective)
    count = exact or tokens.guessed(objective)
    search = tokens.total(data.search.examples, [objective.metric], count)
    proof = tokens.total(data.held_out.examples, metrics(spec), count)
    return search, proof, exact is not None
