"""What every served model does, whatever it was merged of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from evomerge.connectors.local.engine_values import Draw, Ended, Piece, Scored

Prompt: TypeAlias = str | tuple[int, ...]
Turn: TypeAlias = tuple[str, str]

# logprobs: of the answer's tokens; echo: of the prompt's too; sampling: several answers, drawn as
# the request says; choices: among options that the request gives.
Ability = Literal["logprobs", "echo", "sampling", "choices"]


@dataclass(frozen=True)
class Request:
    """One request, checked, whichever endpoint it came by.

    Attributes:
        draw: how each answer is drawn; its seed is of the first of `samples`.
        max_tokens: of each answer at most; None leaves it to the model.
        prompts: texts or token ids to continue; empty for a chat.
        messages: (role, content) of a chat; empty otherwise.
        samples: answers to each prompt.
        alternatives: log-probabilities wanted beside each token's own; None for none at all.
        echo: whether the prompt's tokens are wanted too.
        choices: options to choose from, for models that choose.
    """

    draw: Draw
    max_tokens: int | None = None
    prompts: tuple[Prompt, ...] = ()
    messages: tuple[Turn, ...] = ()
    samples: int = 1
    alternatives: int | None = None
    echo: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """Something of one of the answers; they are numbered by prompt and then by sample.

    `report` is what else is to be told of the answer as it stands.
    """

    index: int
    told: Scored | Piece | Ended
    report: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    """Answers on their way.

    Attributes:
        prompts: the prompts' texts, to be echoed.
        prompt_tokens: of all prompts, each counted once.
        parts: of all answers as they come; each answer's first part is a `Scored`, its last one
            an `Ended`. Ending the iteration early drops what is left. Raises ApiError.
        report: what else is to be told, complete when `parts` has ended.
    """

    prompts: tuple[str, ...]
    prompt_tokens: int
    parts: AsyncGenerator[Part]
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """How a model is listed.

    Attributes:
        name: what it is called by.
        created: seconds since the epoch.
        about: more of it, for people and programs.
    """

    name: str
    created: float
    about: Mapping[str, Any]


async def nothing() -> AsyncGenerator[Part]:
    """No parts: what a run has until it is given its own."""
    return
    yield


class ServedModel(Protocol):
    """Answers requests. One object serves many at once."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can do; anything else is refused by `start`."""
        ...

    async def start(self, request: Request) -> Run:
        """Begin to answer.

        Raises:
            BadParameterError: the model cannot do what is asked; names the parameter.
            BusyError: too many requests wait.
            ModelUnavailableError: what it needs is away.
            ModelFailedError: it broke.
        """
        ...
