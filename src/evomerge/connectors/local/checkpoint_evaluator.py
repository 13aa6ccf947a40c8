"""The evaluator of merged checkpoints: weights written into a seed in memory, one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from evomerge.connectors.base import Scores, Usage
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import ParameterError, WrongSeedError
from evomerge.connectors.local.evaluator import LocalEvaluator, Scoring
from evomerge.connectors.local.stopping import Stopped, in_thread
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import CROSS_ENTROPY
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.lora.population import Population
from evomerge.optimizers.candidate import Candidate

# The model as it is, without an update.
_AS_IT_IS = Population(1, {})


class CheckpointEvaluator:
    """Scores candidates over ELMs of one seed; see `LocalEvaluator` for what losses are.

    The whole model is another one for each candidate, so that they run one after the other. While
    a candidate is scored the model in memory is that candidate: `BaseModel.running` keeps others
    out, and the seed's weights are back when it ends, however it ends.

    Args:
        base: the seed, loaded; several evaluators may share it.
        space: what a candidate means.
        metric: what the losses are.
        dtype: that a candidate's weights are rounded to, as a stored checkpoint is; None for what
            the model computes in.
        scoring: see `LocalEvaluator`.

    Raises:
        WrongSeedError: the base is not the seed of the space.
        ParameterError: a parameter of the model has no tensor of its own and shape in the seed's
            files.
    """

    def __init__(
        self,
        base: BaseModel,
        space: CheckpointSpace,
        metric: str = CROSS_ENTROPY,
        *,
        dtype: torch.dtype | None = None,
        **scoring: Unpack[Scoring],
    ) -> None:
        if base.content_hash != space.seed.content_hash:
            raise WrongSeedError(base.name, space.seed.name)
        self._base = base
        self._space = space
        self._dtype = dtype
        self._targets = parameters_by_tensor(base, space)
        self._scoring = LocalEvaluator(base, _Unchanged(), metric, **scoring)

    def check(self, examples: Sequence[Example]) -> None:
        """See `LocalEvaluator.check`."""
        self._scoring.check(examples)

    def width(self, examples: Sequence[Example]) -> int:
        """One: see the class."""
        return 1

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        """See `Evaluator.score`. Runs in a thread; when cancelled it stops after its batch.

        Raises:
            CandidateError: a candidate does not fit the space.
            LocalModelError: a row does not fit.
            MetricError: the metric does not suit the examples.
        """
        return await in_thread(lambda stopped: self._score(candidates, examples, stopped))

    def _score(
        self, candidates: Sequence[Candidate], examples: Sequence[Example], stopped: Stopped
    ) -> Scores:
        parts = []
        for candidate in candidates:
            with self.merged(candidate):
                parts.append(self._scoring.score_now(_AS_IT_IS, examples, stopped))
        return Scores(
            losses=np.concatenate([each.losses for each in parts]),
            weights=parts[0].weights,
            usage=sum((each.usage for each in parts), Usage()),
        )

    @contextmanager
    def merged(self, candidate: Candidate) -> Iterator[None]:
        """Hold the model with a candidate's weights in it; the seed's are back afterwards.

        Raises:
            CandidateError: the candidate does not fit the space.
        """
        with self._base.running():
            try:
                self._space.fill(candidate, self._targets, self._dtype)
                yield
            finally:
                self._space.fill_seed(self._targets)


class _Unchanged:
    """A space without candidates: what is scored is the model as it is."""

    def realise(self, candidates: Sequence[Candidate]) -> Population:
        return _AS_IT_IS


def parameters_by_tensor(base: BaseModel, space: CheckpointSpace) -> Mapping[str, Tensor]:
    """Where each float tensor of the seed's files is in the model.

    A tensor that loading left out, such as a rotary table, is not in it; tied parameters are
    there once.

    Raises:
        ParameterError: a parameter has no tensor of its own, or one of another shape.
    """
    prefix = f"{base.model.base_model_prefix}."
    held = dict(base.model.state_dict(keep_vars=True))
    found: dict[str, Tensor] = {}
    for name, entry in space.seed.tensors.items():
        target = held.get(name, held.get(prefix + name))
        if target is not None and entry.is_float:
            if tuple(target.shape) != entry.shape or not target.is_contiguous():
                raise ParameterError(name, base.name, f"is of shape {list(target.shape)} in it")
            found[name] = target
    filled = {target.data_ptr() for target in found.values()}
    for name, parameter in base.model.named_parameters():
        if parameter.data_ptr() not in filled:
            raise ParameterError(name, base.name, "has no tensor of its own in the files")
    return found
