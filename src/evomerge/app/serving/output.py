"""A merge by outputs: its experts are asked, and their answers fused as the search fused them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import numpy as np

from evomerge.app.errors import NotPossibleError
from evomerge.app.outputs import StoredOutput
from evomerge.app.serving.errors import (
    BadParameterError,
    UnsupportedParameterError,
)
from evomerge.app.serving.panel import Panel
from evomerge.app.serving.prompts import is_prompt, plain, text_of
from evomerge.app.serving.protocol import Ability, Part, Request, Run, nothing
from evomerge.connectors.local.engine_values import Ended, Piece, Scored
from evomerge.connectors.output.evidence import Given
from evomerge.connectors.output.fused import Fused, fused
from evomerge.connectors.registry import Asker
from evomerge.evaluation.errors import MissingLibraryError
from evomerge.evaluation.example import Example


class OutputModel:
    """A `ServedModel` over experts' APIs.

    Only the experts that the merge keeps are asked, all at once, as its search asked them: so the
    request's own sampling has no say. One that fails is left out and the others' weights stand in.

    Args:
        stored: the merge, its task and its experts.
        asker: asks them.
    """

    def __init__(self, stored: StoredOutput, asker: Asker) -> None:
        self._panel = Panel(stored, asker)
        self._merge = stored.merge

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
        panel = self._panel
        run.report.update(panel.about())
        for index, example in enumerate(examples):
            heard = await panel.ask(example)
            answers = [answer for one in heard for answer in one.answers if answer is not None]
            if not answers:
                raise panel.nobody(panel.failed(heard))
            answer = await self._fused(example, [one.answers for one in heard])
            panel.tell(run.report, panel.failed(heard, answer.silent), **_options(example, answer))
            run.prompt_tokens += sum(each.input_tokens for each in answers)
            yield Part(index, Scored(()))
            yield Part(index, Piece(_cut(answer.text, stop)))
            yield Part(index, Ended("stop", sum(each.output_tokens for each in answers)))

    async def _fused(self, example: Example, given: Sequence[Given]) -> Fused:
        panel = self._panel
        try:
            return await asyncio.to_thread(
                fused, panel.merge, panel.experts, example, given, panel.task
            )
        except MissingLibraryError as error:
            raise NotPossibleError(str(error)) from error


def _options(example: Example, answer: Fused) -> dict[str, Any]:
    """What a choice tells of its options."""
    if not answer.probabilities:
        return {}
    options = [
        {"text": text, "probability": p, "logprob": float(np.log(max(p, 1e-300)))}
        for text, p in zip(example.choices, answer.probabilities, strict=True)
    ]
    return {"choices": options}


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
