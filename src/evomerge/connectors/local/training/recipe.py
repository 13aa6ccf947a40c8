"""How a run trains: sizes, learning rate, schedule, precision. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from evomerge.connectors.local.training.errors import RecipeError, TooFewTokensError
from evomerge.evaluation.corpus import Shares

Schedule = Literal["cosine", "linear", "constant"]
# auto: float32 on a CPU, bfloat16 on CUDA.
Precision = Literal["auto", "float32", "bfloat16"]
_LOWEST = 0.1  # What cosine and linear end at, as a share of the learning rate.


@dataclass(frozen=True)
class Recipe:
    """The training of one ELM.

    Attributes:
        tokens: to train on at most; whole batches are taken, the rest is left.
        block_tokens: tokens that a row predicts.
        batch_blocks: rows of one optimizer step, over all devices.
        learning_rate: the highest one.
        warmup_share: share of the schedule in which the learning rate rises to it from zero.
        schedule: how it falls afterwards: cosine or linear to a tenth, or constant.
        weight_decay: AdamW's, on matrices only.
        clip: largest norm of the gradient; what is longer is scaled down.
        seed: of the first weights, of dropout and of the order of blocks.
        checkpoint_steps: a resumable checkpoint is written every so many steps, and at the end.
        precision: what forward and backward compute in; weights and optimizer are float32.
        micro_blocks: rows of one forward, where a batch does not fit in memory at once; None
            for all of them.
        dev_share: share of the documents kept for development; 0 for none.
        test_share: share of the documents never touched by training.
        schedule_tokens: tokens that the schedule spans, its ancestors' and descendants' included,
            where an optimizer is continued; by default it ends with the run.
        keep_optimizer: store the optimizer's state beside the ELM, for a branch that continues it.

    Raises:
        RecipeError: a field is out of range.
        ShareError: the shares are.
    """

    tokens: int
    block_tokens: int = 256
    batch_blocks: int = 16
    learning_rate: float = 1e-3
    warmup_share: float = 0.05
    schedule: Schedule = "cosine"
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    checkpoint_steps: int = 200
    precision: Precision = "auto"
    micro_blocks: int | None = None
    dev_share: float = 0.05
    test_share: float = 0.05
    schedule_tokens: int | None = None
    keep_optimizer: bool = False

    def __post_init__(self) -> None:
        for field in ("block_tokens", "batch_blocks", "checkpoint_steps"):
            _at_least(field, getattr(self, field), 1)
        _at_least("seed", self.seed, 0)
        if self.micro_blocks is not None:
            _at_least("micro_blocks", self.micro_blocks, 1)
        if self.tokens < self.batch_tokens:
            reason = f"must be at least one batch, {self.batch_tokens} tokens"
            raise RecipeError("tokens", self.tokens, reason)
        if self.schedule_tokens is not None and self.schedule_tokens < self.own_tokens:
            reason = f"must be at least the run's own {self.own_tokens} tokens"
            raise RecipeError("schedule_tokens", self.schedule_tokens, reason)
        _between("learning_rate", self.learning_rate, above=0.0, most=math.inf)
        _between("clip", self.clip, above=0.0, most=math.inf)
        if not 0 <= self.warmup_share < 1:
            raise RecipeError("warmup_share", self.warmup_share, "must be at least 0 and below 1")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise RecipeError("weight_decay", self.weight_decay, "must be at least 0 and finite")
        for field, kind in (("schedule", Schedule), ("precision", Precision)):
            known = get_args(kind)
            if getattr(self, field) not in known:
                raise RecipeError(field, getattr(self, field), f"must be one of {', '.join(known)}")
        _ = self.shares

    @property
    def shares(self) -> Shares:
        """Which documents are set aside."""
        return Shares(dev=self.dev_share, test=self.test_share)

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step."""
        return self.block_tokens * self.batch_blocks

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return self.tokens // self.batch_tokens

    @property
    def own_tokens(self) -> int:
        """Tokens that the run trains on."""
        return self.steps * self.batch_tokens

    def rate(self, step: int, done: int = 0) -> float:
        """The learning rate of a step.

        Args:
            step: of this run, from 0.
            done: steps of the same schedule that ancestors have done.
        """
        spanned = (self.schedule_tokens or 0) // self.batch_tokens
        total = max(spanned, done + self.steps)
        warmup = math.ceil(self.warmup_share * total)
        place = done + step
        if place < warmup:
            return self.learning_rate * (place + 1) / warmup
        if self.schedule == "constant":
            return self.learning_rate
        share = (place - warmup) / (total - warmup)
        falling = (1 + math.cos(math.pi * share)) / 2 if self.schedule == "cosine" else 1 - share
        return self.learning_rate * (_LOWEST + (1 - _LOWEST) * falling)


def check_fills(domain: str, part: str, tokens: int, block_tokens: int) -> None:
    """Refuse a part of a domain that gives no block (its targets need one token more).

    Raises:
        TooFewTokensError: names the domain and both sizes.
    """
    if tokens < block_tokens + 1:
        raise TooFewTokensError(domain, part, tokens, block_tokens + 1)


def _at_least(field: str, value: int, least: int) -> None:
    if value < least:
        raise RecipeError(field, value, f"must be at least {least}")


def _between(field: str, value: float, above: float, most: float) -> None:
    if not (above < value < most):
        raise RecipeError(field, value, f"must be above {above:g} and finite")
