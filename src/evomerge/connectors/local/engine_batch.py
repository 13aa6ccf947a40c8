"""Rows under way together, with their keys and values.

Rows are padded on the left, so that every row's newest token stands in the last column; a row
that joins or leaves moves the padding and never a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache

from evomerge.connectors.local.base_model import BaseModel


@dataclass
class Batch:
    """Keys and values of some rows.

    Attributes:
        cache: of transformers; every layer (rows, heads, length, d_head).
        mask: (rows, length) int64, 0 at the padding.
    """

    cache: DynamicCache
    mask: Tensor

    @property
    def length(self) -> int:
        """Columns, padding included."""
        return int(self.mask.shape[1])

    def select(self, rows: Sequence[int]) -> Batch:
        """These rows in this order, without the columns that are padding in all of them."""
        index = torch.tensor(rows, device=self.mask.device)
        mask = self.mask[index]
        spare = int((mask.sum(0) == 0).sum())
        for layer in _layers(self.cache):
            place = index.to(layer.keys.device)
            layer.keys = layer.keys[place][:, :, spare:]
            layer.values = layer.values[place][:, :, spare:]
        return Batch(self.cache, mask[:, spare:])

    def joined(self, other: Batch) -> Batch:
        """These rows and then the other's."""
        length = max(self.length, other.length)
        for mine, its in zip(_layers(self.cache), _layers(other.cache), strict=True):
            mine.keys = torch.cat([_widened(mine.keys, length), _widened(its.keys, length)])
            mine.values = torch.cat([_widened(mine.values, length), _widened(its.values, length)])
        masks = [functional.pad(m, (length - m.shape[1], 0)) for m in (self.mask, other.mask)]
        return Batch(self.cache, torch.cat(masks))

    def step(self, base: BaseModel, tokens: Sequence[int]) -> Tensor:
        """Read one more token a row; last hidden states (rows, d)."""
        ids = torch.tensor(tokens, device=base.device)[:, None]
        self.mask = functional.pad(self.mask, (0, 1), value=1)
        position = self.mask.sum(1, keepdim=True) - 1
        return _forward(base, ids, self.mask, position, self.cache)[:, -1]


def prefill(
    base: BaseModel, prompts: Sequence[Sequence[int]], *, keep: bool
) -> tuple[Tensor, Batch | None]:
    """Read whole prompts.

    Args:
        keep: whether keys and values are wanted for what follows.

    Returns:
        Last hidden states (prompts, longest, d), on the right; and the batch.
    """
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    ids, mask = ids.to(base.device), mask.to(base.device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    # Without the configuration: sliding layers keep everything too, and their mask does the rest.
    cache = DynamicCache() if keep else None
    states = _forward(base, ids, mask, position, cache)
    return states, None if cache is None else Batch(cache, mask)


def _forward(
    base: BaseModel, ids: Tensor, mask: Tensor, position: Tensor, cache: DynamicCache | None
) -> Tensor:
    states: Tensor = base.decoder(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return states


class _Layer(Protocol):
    """A layer of a cache that a forward has filled."""

    keys: Tensor
    values: Tensor


def _layers(cache: DynamicCache) -> list[_Layer]:
    return cast("list[_Layer]", cache.layers)


def _widened(states: Tensor, length: int) -> Tensor:
    return functional.pad(states, (0, 0, length - states.shape[2], 0))
