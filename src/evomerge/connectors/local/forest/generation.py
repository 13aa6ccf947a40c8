"""Several ELMs that an engine continues texts with: their probabilities are mixed, token by token.

Every ELM that runs keeps the keys and values of every text, for what it gave to a text so far is
what it weighs next (arXiv 2208.03306, section 3.2). A top-k per token leaves ELMs out of a mixture
and saves no forward; a static one, and a prior of 0, do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.engine_batch import Batch, prefill
from evomerge.connectors.local.engine_model import LOGITS_BYTES, Prompt, PromptsRead
from evomerge.connectors.local.engine_sampling import Likely, likelihoods
from evomerge.connectors.local.engine_text import Speller
from evomerge.connectors.local.engine_values import Weights
from evomerge.connectors.local.forest.ensemble import Mixing
from evomerge.connectors.local.forest.routing import RoutedText, Routing
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.forest.ensemble import mixture
from evomerge.merging.forest.posterior import RunningPosterior, posterior
from evomerge.merging.forest.prior import moving_average
from evomerge.merging.forest.top_k import keep_top


class Weigher(Protocol):
    """What each ELM weighs in one text that is under way."""

    def weights(self) -> FloatArray:
        """Of the token that comes next, (n,) with sum 1."""
        ...

    def observe(self, token: int, log_probs: FloatArray) -> None:
        """A token was written, and what each ELM gave to it, (n,)."""
        ...


@dataclass(frozen=True)
class _ByPosterior:
    """A `Weigher` by what the ELMs gave to the text."""

    running: RunningPosterior

    def weights(self) -> FloatArray:
        return self.running.weights()

    def observe(self, token: int, log_probs: FloatArray) -> None:
        self.running.observe(log_probs)


class EnsembleModel:
    """An `EngineModel`: the ELMs of a forest that run.

    Under a prior that is updated each text begins with what the texts before it have left, in the
    order in which they ended; so it depends on them.

    Args:
        models: in the order of `mixing.running`; of one vocabulary.
        mixing: how they speak together.
    """

    def __init__(self, models: Sequence[BaseModel], mixing: Mixing) -> None:
        if len(models) != len(mixing.running):
            raise ValueError(f"{len(models)} models, {len(mixing.running)} run")
        self.models = tuple(models)
        self.mixing = mixing
        self.prior = mixing.running_prior
        self.speller = Speller(self.tokenizer)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """See `EngineModel`."""
        return self.models[0].tokenizer

    @property
    def context_tokens(self) -> int:
        """See `EngineModel`."""
        return min(base.context_tokens for base in self.models)

    @property
    def vocabulary(self) -> int:
        """See `EngineModel`."""
        return int(self.models[0].projection.out_features)

    @property
    def end_tokens(self) -> Sequence[int]:
        """See `EngineModel`."""
        return self.models[0].end_tokens

    @property
    def moves(self) -> bool:
        """Whether what is read can change what the ELMs weigh."""
        return len(self.models) > 1 and not self.mixing.fixed

    @contextmanager
    def running(self) -> Iterator[None]:
        """See `EngineModel.running`."""
        with ExitStack() as held:
            # In one order, whoever holds them: two forests may have ELMs in common.
            for base in sorted(self.models, key=id):
                held.enter_context(base.running())
            yield

    def read(self, prompts: Sequence[Prompt], *, keep: bool) -> PromptsRead:
        """See `EngineModel.read`."""
        read = [
            prefill(base, [each.ask.prompt for each in prompts], keep=keep) for base in self.models
        ]
        states = [of_elm for of_elm, _ in read]
        begun = [
            self._begin(each, [of_elm[row, -len(each.ask.prompt) :] for of_elm in states])
            for row, each in enumerate(prompts)
        ]
        rows = EnsembleRows(
            self,
            [batch for _, batch in read if batch is not None],
            [one for one, _ in begun],
            [_weights(one) for one, _ in begun],
            self.next_log_probs([of_elm[:, -1] for of_elm in states]),
        )
        return PromptsRead([likely for _, likely in begun], rows.mixed(), rows)

    def next_log_probs(self, states: Sequence[Tensor]) -> Tensor:
        """What each ELM gives to what comes next, (n, rows, vocabulary) float32, of its last hidden
        states (rows, d).
        """
        place = self.models[0].projection.weight.device
        logits = [base.logits(of_elm) for base, of_elm in zip(self.models, states, strict=True)]
        return torch.stack([of_elm.log_softmax(-1).to(place) for of_elm in logits])

    def kept(self, log_weights: FloatArray) -> FloatArray:
        """Log-weights (n, ...) as they are mixed."""
        return keep_top(log_weights, self.mixing.token_top_k)

    def settle(self, weights: Weights) -> None:
        """A text has ended with this posterior."""
        prior = self.prior
        if prior.mode == "updating":
            moved = moving_average(np.array([weights]), prior.weight, prior.weights)
            self.prior = type(prior).updating(moved, prior.weight)

    def _begin(
        self, prompt: Prompt, states: Sequence[Tensor]
    ) -> tuple[Weigher, list[Likely] | None]:
        """Weigh the ELMs by a prompt, and score it, of their last hidden states (length, d)."""
        if self.mixing.routing is not None:
            return self._route(self.mixing.routing, prompt, states)
        history = self.mixing.history
        log_prior = self.prior.log
        running = RunningPosterior(log_prior, history)
        weigher = _ByPosterior(running)
        if not (self.moves or prompt.scored) or len(prompt.ask.prompt) == 1:
            return weigher, [] if prompt.scored else None
        given = self._given(prompt.ask.prompt, states)
        if np.isnan(given).any():  # the engine sees it in the logits too, and fails the prompt
            return weigher, [Likely(np.nan, ())] if prompt.scored else None
        if self.moves:
            running.read(given)
        if not prompt.scored:
            return weigher, None
        before = posterior(given, log_prior, history) if self.moves else log_prior[:, None]
        mixed_by = np.broadcast_to(self.kept(before), given.shape)
        return weigher, self._likely(prompt, states, given, mixed_by)

    def _route(
        self, routing: Routing, prompt: Prompt, states: Sequence[Tensor]
    ) -> tuple[Weigher, list[Likely] | None]:
        """The same by a router, which reads the prompt's text."""
        tokens = prompt.ask.prompt
        text = RoutedText(routing, self.speller)
        for token in tokens:
            text.observe(token)
        if not prompt.scored:
            return text, None
        given = self._given(tokens, states)
        if np.isnan(given).any():
            return text, [Likely(np.nan, ())]
        mixed_by = self.kept(routing.log_weights(self.speller, tokens)[:, 1:])
        return text, self._likely(prompt, states, given, mixed_by)

    def _given(self, tokens: Sequence[int], states: Sequence[Tensor]) -> FloatArray:
        """What each ELM gave to each token but the first, (n, length - 1) float64."""
        given = np.empty((len(self.models), len(tokens) - 1))
        for place, targets in self._chunks(tokens):
            for elm, (base, of_elm) in enumerate(zip(self.models, states, strict=True)):
                found = likelihoods(base.logits(of_elm[place]), targets, 0)
                given[elm, place] = [min(each.logprob, 0.0) for each in found]
        return given

    def _likely(
        self,
        prompt: Prompt,
        states: Sequence[Tensor],
        given: FloatArray,
        log_weights: FloatArray,
    ) -> list[Likely]:
        """How likely the prompt's tokens but the first were under the mixture."""
        alternatives = prompt.ask.alternatives
        if not alternatives:
            return [Likely(each, ()) for each in mixture(given, log_weights).tolist()]
        return [
            each
            for place, targets in self._chunks(prompt.ask.prompt)
            for each in likelihoods(
                _mixed(
                    self.next_log_probs([of_elm[place] for of_elm in states]),
                    log_weights[:, place],
                ),
                targets,
                alternatives,
            )
        ]

    def _chunks(self, tokens: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
        """Where the states are that predict some tokens, and those tokens."""
        size = max(1, LOGITS_BYTES // (4 * self.vocabulary * len(self.models)))
        for begin in range(0, len(tokens) - 1, size):
            end = min(begin + size, len(tokens) - 1)
            yield slice(begin, end), torch.tensor(tokens[begin + 1 : end + 1])


@dataclass
class EnsembleRows:
    """`Rows` of an `EnsembleModel`.

    Attributes:
        model: whose they are.
        batches: an ELM's each; empty where nothing was kept.
        weighers: a row's each.
        now: what each of them says, before any top-k.
        newest: (n, rows, vocabulary), what each ELM gives to what comes next.
    """

    model: EnsembleModel
    batches: list[Batch]
    weighers: list[Weigher]
    now: list[Weights]
    newest: Tensor

    def mixed(self) -> Tensor:
        """Log-probabilities of what comes next (rows, vocabulary) float32; as logits, they are the
        mixture's.
        """
        if len(self.newest) == 1:
            return self.newest[0]
        with np.errstate(divide="ignore"):
            log_weights = np.log(np.array(self.now).T)
        return _mixed(self.newest, self.model.kept(log_weights))

    def weights(self) -> list[Weights]:
        """See `Rows.weights`: what the weighers say, before any top-k."""
        return list(self.now)

    def observe(self, tokens: Sequence[int | None]) -> None:
        """See `Rows.observe`."""
        if not self.model.moves:
            return
        on = [row for row, token in enumerate(tokens) if token is not None]
        chosen = [token for token in tokens if token is not None]
        given = self.newest[:, on, chosen].double().clamp(max=0).cpu().numpy()
        for row, token, of_row in zip(on, chosen, given.T, strict=True):
            self.weighers[row].observe(token, of_row)
            self.now[row] = _weights(self.weighers[row])

    def ended(self, rows: Sequence[int]) -> None:
        """See `Rows.ended`."""
        for row in rows:
            self.model.settle(self.now[row])

    def select(self, rows: Sequence[int]) -> EnsembleRows:
        """See `Rows.select`."""
        return EnsembleRows(
            self.model,
            [batch.select(rows) for batch in self.batches],
            [self.weighers[row] for row in rows],
            [self.now[row] for row in rows],
            self.newest[:, list(rows)],
        )

    def joined(self, other: EnsembleRows) -> EnsembleRows:
        """See `Rows.joined`."""
        return EnsembleRows(
            self.model,
            [mine.joined(its) for mine, its in zip(self.batches, other.batches, strict=True)],
            [*self.weighers, *other.weighers],
            [*self.now, *other.now],
            torch.cat([self.newest, other.newest], 1),
        )

    def step(self, tokens: Sequence[int]) -> Tensor:
        """See `Rows.step`."""
        pairs = zip(self.model.models, self.batches, strict=True)
        states = [batch.step(base, tokens) for base, batch in pairs]
        self.newest = self.model.next_log_probs(states)
        return self.mixed()


def _weights(weigher: Weigher) -> Weights:
    return tuple(weigher.weights().tolist())


def _mixed(log_probs: Tensor, log_weights: FloatArray) -> Tensor:
    """log sum_j w_j p_j (rows, vocabulary), of log p (n, rows, vocabulary) and log w (n, rows)."""
    weights = torch.tensor(log_weights).to(log_probs)
    return (log_probs + weights[..., None]).logsumexp(0)
