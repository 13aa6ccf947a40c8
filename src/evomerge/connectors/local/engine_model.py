"""What an engine continues prompts with: one model and adapters, or several that speak together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evomerge.connectors.local.engine_layers import EngineAdapter
from evomerge.connectors.local.engine_sampling import Likely
from evomerge.connectors.local.engine_values import Ask, Weights

# Logits of one chunk of prompt positions at most, in bytes.
LOGITS_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Prompt:
    """One prompt to read, and what is added to the model for it."""

    ask: Ask
    adapter: EngineAdapter | None = None

    @property
    def scored(self) -> bool:
        """Whether the prompt's own tokens are to be scored."""
        return self.ask.echo and self.ask.alternatives is not None


class Rows(Protocol):
    """Texts under way together: what the model has kept of them."""

    def weights(self) -> list[Weights]:
        """Of each row, what each of the models that speak weighs now; empty where one speaks."""
        ...

    def observe(self, tokens: Sequence[int | None]) -> None:
        """The token that was chosen for each row by the newest logits; None where none was."""
        ...

    def ended(self, rows: Sequence[int]) -> None:
        """Nothing more comes of these rows; the next `select` leaves them out."""
        ...

    def select(self, rows: Sequence[int]) -> Self:
        """These rows in this order, at least one. These objects are not to be used any more."""
        ...

    def joined(self, other: Self) -> Self:
        """These rows and then the other's."""
        ...

    def step(self, tokens: Sequence[int]) -> Tensor:
        """Read one more token a row; logits (rows, vocabulary) float32 of what comes next."""
        ...


@dataclass
class PromptsRead:
    """Prompts that went through the model.

    Attributes:
        likely: of each prompt, how likely its tokens but the first were; None where that was not
            asked.
        logits: (prompts, vocabulary) float32, of what comes next.
        rows: the prompts as rows; to be stepped only if they were to be kept.
    """

    likely: list[list[Likely] | None]
    logits: Tensor
    rows: Rows


class EngineModel(Protocol):
    """Reads prompts and steps rows. One thread at a time uses it, inside `running`."""

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Spells the tokens."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens that one row may have at most."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        ...

    @property
    def end_tokens(self) -> Sequence[int]:
        """Tokens that end an answer."""
        ...

    def running(self) -> AbstractContextManager[None]:
        """Hold the model for what follows."""
        ...

    def read(self, prompts: Sequence[Prompt], *, keep: bool) -> PromptsRead:
        """Read whole prompts.

        Args:
            keep: whether keys and values are wanted for what follows.
        """
        ...
