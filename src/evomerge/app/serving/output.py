"""A merge by outputs: its experts are asked, and their answers fused as the search fused them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evomerge.app.errors import NotPossibleError
from evomerge.app.outputs import StoredOutput
from evomerge.app.serving.errors import (
    BadParameterError,
    ModelUnavailableError,
    UnsupportedParameterError,
)
from evomerge.app.serving.failures import reason
from evomerge.app.serving.prompts import is_prompt, plain, text_of
from evomerge.app.serving.protocol import Ability, Part, Request, Run, nothing
from evomerge.connectors.errors import AskError
from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.local.engine_values import Ended, Piece, Scored
from evomerge.connectors.output.errors import ExpertUnableError
from evomerge.connectors.output.evidence import Given
from evomerge.connectors.output.fused import Fused, fused
from evomerge.connectors.output.questions import questions
from evomerge.connectors.question import Answer
from evomerge.connectors.registry import Asker
from evomerge.evaluation.errors import MissingLibraryError
from evomerge.evaluation.example import Example

_SILENT = "its answer does not say what was asked"


@dataclass(frozen=True)
class _Heard:
    """What one expert answered to one example; None in the place of what failed."""

    answers: tuple[Answer | None, ...] = ()
    failure: str | None = None


class OutputModel:
    """A `ServedModel` over experts' APIs.

    Only the experts that the merge keeps are asked, all at once, as its search asked them: so the
    request's own sampling has no say. One that fails is left out and the others' weights stand in.

    Args:
        stored: the merge, its task and its experts.
        asker: asks them.
    """

    def __init__(self, stored: StoredOutput, asker: Asker) -> None:
        self._merge = stored.merge
        self._task = stored.task
        self._experts = [one.expert for one in stored.experts]
        self._asker = asker

    @property
    def abilities(self) -> frozenset[Ability]:
        """See `ServedModel`."""
        return frozenset({"choices"} if self._merge.kind == "choice" else ())

    async def start(self, request: Request) -> Run:
        """See `ServedModel.start`. Experts are asked when the run's parts are."""
        examples = self._examples(request)
        run = Run(("",) * len(examples), 0, nothing())
        run.parts = self._parts(run, examples, request.draw.stop)
        return run

    def _examples(self, request: Request) -> list[Example]:
        self._refuse(request)
        choices = self._choices(request)
        if request.messages:
            return [_chat_example(request.messages, choices)]
        return [_example(text_of(prompt), choices) for prompt in request.prompts]

    def _refuse(self, request: Request) -> None:
        if self._merge.kind == "scored_text":
            raise BadParameterError(
                "model: this merge mixes token probabilities; it writes no answers", "model"
            )
        for param, given in (
            ("logprobs", request.alternatives is not None),
            ("echo", request.echo),
            ("n", request.samples > 1),
        ):
            if given:
                raise UnsupportedParameterError(
                    param, "a merge of answers gives one fused answer, without tokens of its own"
                )

    def _choices(self, request: Request) -> tuple[str, ...]:
        if self._merge.kind != "choice":
            if request.choices:
                raise UnsupportedParameterError("choices", "this merge does not choose")
            return ()
        choices = request.choices or self._merge.choices or ()
        if not choices:
            raise BadParameterError(
                "choices: this merge chooses among options, and its data had no fixed set: give "
                "the options",
                "choices",
            )
        if len(set(choices)) < len(choices):
            raise BadParameterError("choices: an option stands more than once", "choices")
        return choices

    async def _parts(
        self, run: Run, examples: Sequence[Example], stop: Sequence[str]
    ) -> AsyncGenerator[Part]:
        run.report.update(self._about())
        for index, example in enumerate(examples):
            heard = await self._ask(example)
            answers = [answer for one in heard for answer in one.answers if answer is not None]
            given = [one.answers for one in heard]
            answer = await self._fused(example, given)
            self._report(run.report, example, heard, answer)
            run.prompt_tokens += sum(each.input_tokens for each in answers)
            yield Part(index, Scored(()))
            yield Part(index, Piece(_cut(answer.text, stop)))
            yield Part(index, Ended("stop", sum(each.output_tokens for each in answers)))

    async def _fused(self, example: Example, given: Sequence[Given]) -> Fused:
        try:
            return await asyncio.to_thread(
                fused, self._merge, self._experts, example, given, self._task
            )
        except MissingLibraryError as error:
            raise NotPossibleError(str(error)) from error

    async def _ask(self, example: Example) -> list[_Heard]:
        """Of every expert; nothing of those that the merge drops.

        Raises:
            ModelUnavailableError: nobody answers.
        """
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._hear(expert, example)) if keep else None
                for expert, keep in zip(self._experts, self._merge.kept.tolist(), strict=True)
            ]
        heard = [_Heard() if task is None else task.result() for task in tasks]
        if not any(any(one.answers) for one in heard):
            named = zip(self._merge.experts, heard, strict=True)
            why = "; ".join(f"{name}: {one.failure}" for name, one in named if one.failure)
            raise ModelUnavailableError(
                f"no expert answers ({why or 'none is kept'})", param="model"
            )
        return heard

    async def _hear(self, expert: ApiExpert, example: Example) -> _Heard:
        async def ask_one(number: int) -> Answer | AskError:
            try:
                return await self._asker.ask(asked[number], expert.capabilities)
            except AskError as error:
                return error

        try:
            asked = questions(expert, example, self._task)
        except ExpertUnableError as error:
            return _Heard(failure=f"it {error.reason}")
        said = await asyncio.gather(*map(ask_one, range(len(asked))))
        failures = [one for one in said if isinstance(one, AskError)]
        answers = tuple(None if isinstance(one, AskError) else one for one in said)
        if len(failures) == len(said):
            return _Heard(failure=reason(failures[0]))
        return _Heard(answers)

    def _about(self) -> dict[str, Any]:
        merge = self._merge
        pairs = zip(merge.experts, merge.kept.tolist(), strict=True)
        about: dict[str, Any] = {
            "space": "output",
            "kind": merge.kind,
            "asked": [name for name, keep in pairs if keep],
            "failed": [],
            "answers": [],
        }
        return about if merge.threshold is None else {**about, "threshold": merge.threshold}

    def _report(
        self, report: dict[str, Any], example: Example, heard: Sequence[_Heard], answer: Fused
    ) -> None:
        failed = dict.fromkeys(answer.silent, _SILENT)
        failed |= {
            name: one.failure
            for name, one in zip(self._merge.experts, heard, strict=True)
            if one.failure is not None
        }
        index = len(report["answers"])
        report["failed"] += [
            {"expert": name, "index": index, "reason": reason} for name, reason in failed.items()
        ]
        told: dict[str, Any] = {"index": index, "weights": self._weights(failed)}
        if answer.probabilities:
            told["choices"] = [
                {"text": text, "probability": p, "logprob": float(np.log(max(p, 1e-300)))}
                for text, p in zip(example.choices, answer.probabilities, strict=True)
            ]
        report["answers"].append(told)

    def _weights(self, failed: Mapping[str, str]) -> dict[str, float]:
        """Of those that spoke, as shares: positive ones add up to 1."""
        merge = self._merge
        rows = zip(merge.experts, merge.beta, merge.kept.tolist(), strict=True)
        spoke = {name: beta for name, beta, keep in rows if keep and name not in failed}
        whole = sum(beta for beta in spoke.values() if beta > 0) or 1.0
        return {name: beta / whole for name, beta in spoke.items()}


def _example(
    prompt: str, choices: tuple[str, ...], messages: tuple[tuple[str, str], ...] = ()
) -> Example:
    # A choice needs a right answer to be one; which one it is nobody looks at.
    return Example(prompt, choices[0] if choices else "", choices, messages)


def _chat_example(messages: tuple[tuple[str, str], ...], choices: tuple[str, ...]) -> Example:
    return _example(plain(messages), choices, () if is_prompt(messages) else messages)


def _cut(text: str, stop: Sequence[str]) -> str:
    ends = [at for each in stop if (at := text.find(each)) >= 0]
    return text[: min(ends)] if ends else text
