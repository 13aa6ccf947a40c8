"""A LoRA adapter, or a bare base, that answers in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from evomerge.app.serving.errors import (
    BadParameterError,
    BusyError,
    ContextLengthError,
    ModelFailedError,
    UnsupportedParameterError,
)
from evomerge.app.serving.protocol import Ability, Part, Request, Run
from evomerge.connectors.local.engine_values import (
    Ask,
    Ended,
    EngineBusyError,
    EngineError,
    Failed,
    Piece,
    PromptTooLongError,
    Ticket,
    Told,
    UnknownTokenError,
)

if TYPE_CHECKING:
    from evomerge.connectors.local.engine import Engine
    from evomerge.connectors.local.engine_layers import EngineAdapter
    from evomerge.connectors.local.engine_prompts import Prompter

_Heard: TypeAlias = "asyncio.Queue[tuple[int, Told]]"


@dataclass(frozen=True)
class ChatForm:
    """How a chat becomes a prompt.

    Attributes:
        template: whether by the tokenizer's chat template, where it has one.
        suffix: what follows a chat that goes without.
        max_tokens: of an answer, where a request leaves it open.
    """

    template: bool = True
    suffix: str = ""
    max_tokens: int = 256


class LocalModel:
    """A `ServedModel` over an engine.

    Args:
        engine: of its base.
        prompter: of its base.
        adapter: what is added to the base; None for nothing.
        form: how chats are put to it.
    """

    abilities: frozenset[Ability] = frozenset({"logprobs", "echo", "sampling"})

    def __init__(
        self, engine: Engine, prompter: Prompter, adapter: EngineAdapter | None, form: ChatForm
    ) -> None:
        self._engine = engine
        self._prompter = prompter
        self._adapter = adapter
        self._form = form

    async def start(self, request: Request) -> Run:
        """See `ServedModel.start`."""
        if request.choices:
            raise UnsupportedParameterError("choices", "this model writes; it does not choose")
        # Long prompts take a while, and HTTP must not wait for them.
        texts, prompts = await asyncio.to_thread(self._encode, request)
        heard: _Heard = asyncio.Queue()
        tickets = self._start(self._asks(prompts, request), heard)
        parts = _parts(heard, tickets)
        if request.messages:
            parts = stripped(parts)
        return Run(texts, sum(map(len, prompts)), parts)

    @property
    def context_tokens(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self._engine.model.context_tokens

    async def tokens(self, request: Request) -> tuple[int, ...]:
        """The tokens that a request's only prompt, or its chat, is read as; nothing is written."""
        _, (tokens,) = await asyncio.to_thread(self._encode, request)
        return tokens

    def _encode(self, request: Request) -> tuple[tuple[str, ...], list[tuple[int, ...]]]:
        if request.messages:
            form = self._form
            tokens = self._prompter.chat(
                request.messages, template=form.template, suffix=form.suffix
            )
            return ("",), [tokens]
        texts = tuple(map(self._prompter.text, request.prompts)) if request.echo else ()
        return texts, [self._prompter.tokens(prompt) for prompt in request.prompts]

    def _asks(self, prompts: Sequence[tuple[int, ...]], request: Request) -> list[Ask]:
        draws = [
            replace(request.draw, seed=(request.draw.seed + sample) % 2**64)
            for sample in range(request.samples)
        ]
        return [
            Ask(prompt, self._room(prompt, request), draw, request.alternatives, request.echo)
            for prompt in prompts
            for draw in draws
        ]

    def _room(self, prompt: tuple[int, ...], request: Request) -> int:
        if request.max_tokens is not None:
            return request.max_tokens
        return max(1, min(self._form.max_tokens, self._engine.model.context_tokens - len(prompt)))

    def _start(self, asks: Sequence[Ask], heard: _Heard) -> list[Ticket]:
        loop = asyncio.get_running_loop()

        def tell(index: int, told: Told) -> None:
            with suppress(RuntimeError):  # the loop has closed: nobody listens any more
                loop.call_soon_threadsafe(heard.put_nowait, (index, told))

        tells = [partial(tell, index) for index in range(len(asks))]
        try:
            return self._engine.start(asks, self._adapter, tells)
        except PromptTooLongError as error:
            param = "messages" if error.prompt > error.limit else "max_tokens"
            raise ContextLengthError(str(error), param) from error
        except UnknownTokenError as error:
            raise BadParameterError(f"prompt: {error}", "prompt") from error
        except EngineBusyError as error:
            raise BusyError(str(error)) from error
        except EngineError as error:
            raise ModelFailedError(str(error)) from error


async def _parts(heard: _Heard, tickets: Sequence[Ticket]) -> AsyncGenerator[Part]:
    left = len(tickets)
    try:
        while left:
            index, told = await heard.get()
            if isinstance(told, Failed):
                raise ModelFailedError(str(told.error)) from told.error
            left -= isinstance(told, Ended)
            yield Part(index, told)
    finally:
        for ticket in tickets:
            ticket.cancel()


async def stripped(parts: AsyncGenerator[Part]) -> AsyncGenerator[Part]:
    """The same without white space around each answer, as answers are compared everywhere."""
    begun: set[int] = set()
    held: dict[int, str] = {}
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part.told, Piece):
                text = held.pop(part.index, "") + part.told.text
                text = text if part.index in begun else text.lstrip()
                kept = text.rstrip()
                if kept:
                    begun.add(part.index)
                held[part.index] = text[len(kept) :]
                if kept or part.told.tokens:
                    yield Part(part.index, replace(part.told, text=kept))
            else:
                yield part
