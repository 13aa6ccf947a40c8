"""The calls that a job in the output space would make: who is asked what, less what is known."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from evomerge.app.db.repositories import answers
from evomerge.app.db.repositories.answers import Outcome
from evomerge.app.errors import InvalidRequestError
from evomerge.app.output_task import output_task
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services.context import Context
from evomerge.app.worker.inputs import Data
from evomerge.app.worker.paid_call import requests
from evomerge.app.worker.readings import Readings
from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.output.errors import OutputTaskError
from evomerge.connectors.output.questions import OutputTokens, output_tokens, questions
from evomerge.connectors.question import Answer, Question
from evomerge.connectors.tokenize import token_counts

_LOOK_UP = 500
# Texts of each expert whose tokens are counted, to correct the estimate of the others.
_COUNTED = 40


@dataclass(frozen=True)
class Foreseen:
    """What calls to APIs would come to.

    Attributes:
        answers: that the job needs.
        answers_known: of them, at no cost.
        requests, input_tokens, output_tokens, usd: for the others.
    """

    answers: int
    answers_known: int
    requests: int
    input_tokens: int
    output_tokens: int
    usd: float


NO_CALLS = Foreseen(0, 0, 0, 0, 0, 0.0)

_Asked = tuple[ApiExpert, Question, OutputTokens]


async def foreseen(context: Context, spec: MergeJobSpec, inputs: JobInputs, data: Data) -> Foreseen:
    """What the job would spend, its budget being large enough.

    Raises:
        InvalidRequestError: an expert cannot be asked about a row.
    """
    try:
        asked = await asyncio.to_thread(_asked, spec, inputs, data)
    except OutputTaskError as error:
        raise InvalidRequestError(f"experts: {error}", param="experts") from error
    known = await _known(context, [question.key for _, question, _ in asked])
    missing = [one for one in asked if one[1].key not in known]
    scales = await _scales(context, missing, _readings(asked, known))
    read = [
        round(scales[expert.name] * expert.input_tokens(question))
        for expert, question, _ in missing
    ]
    written = [tokens.typical for *_, tokens in missing]
    return Foreseen(
        answers=len(asked),
        answers_known=len(asked) - len(missing),
        requests=sum(requests(question, expert) for expert, question, _ in missing),
        input_tokens=sum(read),
        output_tokens=sum(written),
        usd=sum(
            expert.price.of(into, out)
            for (expert, *_), into, out in zip(missing, read, written, strict=True)
        ),
    )


def _asked(spec: MergeJobSpec, inputs: JobInputs, data: Data) -> list[_Asked]:
    """Each question once."""
    examples = [*data.search.examples, *data.held_out.examples]
    task = output_task(spec, examples[0].kind)
    found: dict[str, _Asked] = {}
    for expert in (one.known.expert for one in inputs.experts):
        for example in examples:
            for question in questions(expert, example, task):
                tokens = output_tokens(expert, example, question)
                found.setdefault(question.key, (expert, question, tokens))
    return list(found.values())


def _readings(asked: Sequence[_Asked], known: Mapping[str, Outcome]) -> Readings:
    """What answers to some of the job's own questions tell of the others' tokens."""
    readings = Readings()
    for expert, question, _ in asked:
        answer = known.get(question.key)
        if isinstance(answer, Answer):
            readings.see(question, expert, answer)
    return readings


async def _scales(
    context: Context, missing: Sequence[_Asked], readings: Readings
) -> Mapping[str, float]:
    """Counted tokens by estimated one, for each expert's name: as its server tokenizes; or as it
    counted for answers that are known; 1 where there is neither."""
    by_name: dict[str, tuple[ApiExpert, list[Question]]] = {}
    for expert, question, _ in missing:
        by_name.setdefault(expert.name, (expert, []))[1].append(question)
    scales = await asyncio.gather(*(_scale(context, *one) for one in by_name.values()))
    return {
        name: scale or readings.scale(expert.endpoint) or 1.0
        for (name, (expert, _)), scale in zip(by_name.items(), scales, strict=True)
    }


async def _scale(context: Context, expert: ApiExpert, asked: Sequence[Question]) -> float | None:
    """By the server's own tokenizer; None where it tells nothing."""
    if expert.capabilities.tokenizes is None:
        return None
    rng = Random(0)
    sample = [
        replace(question, prompts=tuple(rng.sample(question.prompts, 1 if question.prompts else 0)))
        for question in rng.sample(asked, min(_COUNTED, len(asked)))
    ]
    counts = await token_counts(context.connectors.caller, expert, sample)
    estimated = sum(map(expert.input_tokens, sample))
    return sum(counts) / estimated if counts is not None and estimated else None


async def _known(context: Context, keys: Sequence[str]) -> dict[str, Outcome]:
    known: dict[str, Outcome] = {}
    async with context.database.read() as session:
        for start in range(0, len(keys), _LOOK_UP):
            known |= await answers.find(session, keys[start : start + _LOOK_UP])
    return known
