"""One model that an engine continues prompts with, each row with its own adapter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.engine_batch import Batch, prefill
from evomerge.connectors.local.engine_layers import EngineAdapter, Route, segments
from evomerge.connectors.local.engine_model import LOGITS_BYTES, Prompt, PromptsRead
from evomerge.connectors.local.engine_sampling import Likely, likelihoods
from evomerge.connectors.local.engine_values import Weights


class SingleModel:
    """An `EngineModel`: a base, and adapters over it.

    Args:
        base: the loaded base model, which nothing else may use while it runs here.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._route = Route()

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `EngineModel`."""
        return self.base.tokenizer

    @property
    def context_tokens(self) -> int:
        """See `EngineModel`."""
        return self.base.context_tokens

    @property
    def vocabulary(self) -> int:
        """See `EngineModel`."""
        return int(self.base.projection.out_features)

    @property
    def end_tokens(self) -> Sequence[int]:
        """See `EngineModel`."""
        return self.base.end_tokens

    @contextmanager
    def running(self) -> Iterator[None]:
        """See `EngineModel.running`."""
        with self.base.running(), self._route.installed(self.base):
            yield

    def read(self, prompts: Sequence[Prompt], *, keep: bool) -> PromptsRead:
        """See `EngineModel.read`."""
        adapters = [each.adapter for each in prompts]
        self._route.segments = segments(adapters)
        states, batch = prefill(self.base, [each.ask.prompt for each in prompts], keep=keep)
        return PromptsRead(
            likely=[
                self._likely(each, of_row) for each, of_row in zip(prompts, states, strict=True)
            ],
            logits=self.base.logits(states[:, -1]),
            rows=SingleRows(self.base, self._route, adapters, batch),
        )

    def _likely(self, prompt: Prompt, states: Tensor) -> list[Likely] | None:
        """Of last hidden states (longest, d); the state at a position predicts the next token."""
        ask = prompt.ask
        if not prompt.scored or ask.alternatives is None:
            return None
        targets = torch.tensor(ask.prompt[1:], dtype=torch.int64)
        before = states[states.shape[0] - len(ask.prompt) : -1]
        size = max(1, LOGITS_BYTES // (4 * self.vocabulary))
        parts = zip(torch.split(before, size), torch.split(targets, size), strict=True)
        return [
            each
            for some, wanted in parts
            if len(wanted)
            for each in likelihoods(self.base.logits(some), wanted, ask.alternatives)
        ]


@dataclass
class SingleRows:
    """`Rows` of a `SingleModel`."""

    base: BaseModel
    route: Route
    adapters: list[EngineAdapter | None]
    batch: Batch | None

    def weights(self) -> list[Weights]:
        """See `Rows.weights`."""
        return [()] * len(self.adapters)

    def observe(self, tokens: Sequence[int | None]) -> None:
        """See `Rows.observe`."""

    def ended(self, rows: Sequence[int]) -> None:
        """See `Rows.ended`."""

    def select(self, rows: Sequence[int]) -> SingleRows:
        """See `Rows.select`."""
        adapters = [self.adapters[row] for row in rows]
        return SingleRows(self.base, self.route, adapters, self._kept.select(rows))

    def joined(self, other: SingleRows) -> SingleRows:
        """See `Rows.joined`."""
        adapters = [*self.adapters, *other.adapters]
        return SingleRows(self.base, self.route, adapters, self._kept.joined(other._kept))

    def step(self, tokens: Sequence[int]) -> Tensor:
        """See `Rows.step`."""
        self.route.segments = segments(self.adapters)
        return self.base.logits(self._kept.step(self.base, tokens))

    @property
    def _kept(self) -> Batch:
        if self.batch is None:
            raise ValueError("these rows were read without keeping their keys and values")
        return self.batch
