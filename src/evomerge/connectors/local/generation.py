"""Greedy answers of every candidate of a population."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evomerge.connectors.local.adapters import adapted, check_fits, part
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.batches import batches, width
from evomerge.connectors.local.errors import ScoringCancelledError
from evomerge.connectors.local.stopping import Stopped, never
from evomerge.merging.lora.population import Population

Prompt = tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """What one candidate said.

    Attributes:
        text: without special tokens and without white space around it.
        tokens: how many were generated, end-of-text included.
        broken: whether the model gave NaN on the way.
    """

    text: str
    tokens: int
    broken: bool


def greedy_answers(
    base: BaseModel,
    population: Population,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    batch_tokens: int,
    stopped: Stopped = never,
) -> list[list[Answer]]:
    """The most likely next token again and again, until end-of-text or `max_new_tokens`.

    Sampling settings that come with the base are not used.

    Returns:
        For each candidate, one answer a prompt, in the orders given.

    Raises:
        UnknownModuleError, ShapeError: the population is for another base.
        ScoringCancelledError: `stopped` said so between two tokens.
    """
    check_fits(base, population)
    lengths = [len(prompt) + max_new_tokens for prompt in prompts]
    step = width(sum(lengths), batch_tokens)
    answers: list[list[Answer]] = []
    with base.running():
        for first in range(0, population.size, step):
            some = part(population, first, min(first + step, population.size))
            found: dict[tuple[int, int], Answer] = {}
            with adapted(base, some):
                for batch in batches(lengths, some.size, batch_tokens):
                    picked = [prompts[index] for index in batch]
                    said = _batch(base, some.size, picked, max_new_tokens, stopped)
                    for candidate in range(some.size):
                        for place, index in enumerate(batch):
                            found[candidate, index] = said[candidate * len(batch) + place]
            answers += [[found[c, i] for i in range(len(prompts))] for c in range(some.size)]
    return answers


def _batch(
    base: BaseModel,
    candidates: int,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    stopped: Stopped,
) -> list[Answer]:
    """Answers of (candidates x prompts) rows, padded on the left, with a key-value cache."""
    tokens, mask = (each.to(base.device).repeat(candidates, 1) for each in _pad_left(prompts))
    ends = torch.tensor(base.end_tokens, device=base.device)
    position = (mask.cumsum(1) - 1).clamp(min=0)
    finished = torch.zeros(len(tokens), dtype=torch.bool, device=base.device)
    broken = finished.clone()
    said: list[Tensor] = []
    cache = None
    for _ in range(max_new_tokens):
        if stopped():
            raise ScoringCancelledError("stopped between two tokens")
        out = base.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        logits = out.logits[:, -1].to(base.device)
        broken |= logits.isnan().any(1) & ~finished
        best = logits.argmax(1)
        said.append(torch.where(finished, -1, best))
        finished |= torch.isin(best, ends)
        if bool(finished.all()):
            break
        tokens = best[:, None]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        position = position[:, -1:] + 1
    return _decoded(base, torch.stack(said, 1), broken)


def _pad_left(prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (prompts, longest) int64."""
    longest = max(len(prompt) for prompt in prompts)
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for row, prompt in enumerate(prompts):
        tokens[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return tokens, mask


def _decoded(base: BaseModel, said: Tensor, broken: Tensor) -> list[Answer]:
    answers = []
    for ids, bad in zip(said.tolist(), broken.tolist(), strict=True):
        real = [token for token in ids if token >= 0]
        text = base.tokenizer.decode(real, skip_special_tokens=True)
        answers.append(Answer(str(text).strip(), len(real), bool(bad)))
    return answers
