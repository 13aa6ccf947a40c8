"""A merge that its provider merges anew with every request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import numpy as np

from evomerge.app.errors import ApiError
from evomerge.app.schemas.remote import Remote
from evomerge.app.serving.errors import (
    BusyError,
    ContextLengthError,
    ModelUnavailableError,
    UnsupportedParameterError,
)
from evomerge.app.serving.failures import reason
from evomerge.app.serving.local import ChatForm, stripped
from evomerge.app.serving.prompts import plain, text_of
from evomerge.app.serving.protocol import Ability, Part, Request, Run, nothing
from evomerge.app.worker.remote_bench import MERGE
from evomerge.connectors.client import Caller
from evomerge.connectors.errors import AskError, OverloadedError, TooLongError
from evomerge.connectors.local.engine_values import Ended, Piece, Scored
from evomerge.connectors.question import Endpoint, Sampling
from evomerge.connectors.remote_answers import (
    LlamaCppWriter,
    LoraxWriter,
    RemoteWriter,
    Written,
)
from evomerge.connectors.server import Server, root
from evomerge.optimizers.candidate import Candidate


def remote_writer(folder: Path, remote: Remote | None, caller: Caller) -> RemoteWriter | None:
    """What writes as the merge in an artifacts' folder; None where its provider cannot.

    Raises:
        OSError, ValueError, KeyError: the stored merge is gone or is none.
    """
    if remote is None:
        return None
    merge = json.loads((folder / MERGE).read_text(encoding="utf-8"))
    weights = merge["adapters"]
    candidate = Candidate(
        np.array([[one["alpha"] for one in weights.values()]], np.float64),
        np.array([[one["beta"] for one in weights.values()]], np.float64),
    )
    endpoint = Endpoint(
        remote.provider, root(remote.base_urls[0]), remote.model or "", remote.credential
    )
    server = Server(caller, endpoint)
    match remote.provider:
        case "llama_cpp":
            return LlamaCppWriter(server, [int(name) for name in weights], candidate)
        case "lorax":
            return LoraxWriter(server, list(weights), candidate)
        case _:
            return None


class RemoteModel:
    """A `ServedModel` over a provider.

    Args:
        writer: of the merge.
        form: how chats are put to it; always without a template.
    """

    abilities: frozenset[Ability] = frozenset({"sampling"})

    def __init__(self, writer: RemoteWriter, form: ChatForm) -> None:
        self._writer = writer
        self._form = form

    async def start(self, request: Request) -> Run:
        """See `ServedModel.start`. The provider is asked when the run's parts are."""
        for param, given in (
            ("logprobs", request.alternatives is not None),
            ("echo", request.echo),
            ("choices", bool(request.choices)),
        ):
            if given:
                raise UnsupportedParameterError(param, "a merge at a provider gives text alone")
        if request.messages:
            prompts = [plain(request.messages) + self._form.suffix]
        else:
            prompts = [text_of(prompt) for prompt in request.prompts]
        run = Run(("",) * len(prompts), 0, nothing())
        parts = self._parts(run, prompts, request)
        run.parts = stripped(parts) if request.messages else parts
        return run

    async def _parts(
        self, run: Run, prompts: Sequence[str], request: Request
    ) -> AsyncGenerator[Part]:
        asked = [
            self._writer.write(prompt, self._sampling(request, sample))
            for prompt in prompts
            for sample in range(request.samples)
        ]
        try:
            written: list[Written] = await asyncio.gather(*asked)
        except AskError as error:
            raise _refusal(error) from error
        run.prompt_tokens = sum(one.input_tokens for one in written[:: request.samples])
        for index, one in enumerate(written):
            yield Part(index, Scored(()))
            yield Part(index, Piece(one.text))
            limited = one.finish == "length"
            yield Part(index, Ended("length" if limited else "stop", one.output_tokens))

    def _sampling(self, request: Request, sample: int) -> Sampling:
        draw = request.draw
        return Sampling(
            max_tokens=self._form.max_tokens if request.max_tokens is None else request.max_tokens,
            temperature=draw.temperature,
            top_p=draw.top_p,
            stop=draw.stop,
            seed=(draw.seed + sample) % 2**31,
        )


def _refusal(error: AskError) -> ApiError:
    if isinstance(error, TooLongError):
        return ContextLengthError("the prompt is too long for the model at its provider", "prompt")
    if isinstance(error, OverloadedError):
        return BusyError("the model's provider is overloaded")
    return ModelUnavailableError(f"the model's provider: {reason(error)}", param="model")
