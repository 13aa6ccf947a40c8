"""The training loop.

It runs through `accelerate`, which places model and gradients on one device or on many. The larger
`transformers.Trainer` was looked at first and not taken: its checkpoints are pickles written in
place, it keeps the state of a data loader and of random generators to be replayed, and its
callbacks stand around a loop of its own. Here the rows of a step, the learning rate and dropout's
random numbers are functions of the step's number, so that weights and optimizer are all there is
to save, and a run that was killed goes on to the same bits (on a CPU with the same number of
threads).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from hashlib import sha256

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from evomerge.connectors.local.training.balance import BalancedBatches
from evomerge.connectors.local.training.checkpoints import Checkpoint, Checkpoints
from evomerge.connectors.local.training.errors import (
    CheckpointStateError,
    DivergedError,
    ProcessesError,
    RecipeError,
    StoppedTrainingError,
)
from evomerge.connectors.local.training.optimizer import (
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from evomerge.connectors.local.training.placement import Placement
from evomerge.connectors.local.training.progress import Progress, Watch
from evomerge.connectors.local.training.recipe import Recipe

# Losses of the last steps, whose mean is the training loss that is reported.
_LOSSES = 50
NO_TARGET = -1
_ALONE = Placement("cpu", 1)


class Trainer:
    """Trains one model; called again over the same checkpoints it goes on where they end.

    Attributes:
        model: float32, changed in place; on `device`.
        batches: the rows of each step.
        device: where rows go.
        step: steps done.
        losses: of the last steps, nats a token.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        batches: BalancedBatches,
        recipe: Recipe,
        checkpoints: Checkpoints,
        *,
        optimizer: Mapping[str, Tensor],
        schedule_done: int = 0,
        last_step: int | None = None,
        placement: Placement = _ALONE,
    ) -> None:
        """Load the latest checkpoint, if there is one.

        Args:
            model: with its first weights.
            batches: the rows of each step.
            recipe: sizes, rates, precision.
            checkpoints: where they are written.
            optimizer: a parent's state (`optimizer_tensors`) to continue; empty to begin anew.
            schedule_done: tokens of the schedule that ancestors have done.
            last_step: where training ends, if that is before the recipe's end; rates stay.
            placement: where it computes; of several processes, this is one.

        Raises:
            CheckpointStateError: there are checkpoints, none of which can be read.
            OptimizerStateError: the parent's state does not fit the model.
            RecipeError: more steps are done than `last_step`.
            ProcessesError: there are not so many processes.
        """
        self.model = model
        self.batches = batches
        self._recipe = recipe
        self._checkpoints = checkpoints
        self._done = schedule_done // recipe.batch_tokens
        self._steps = recipe.steps if last_step is None else min(recipe.steps, last_step)
        latest = checkpoints.latest()
        self.step = latest.step if latest else 0
        if self.step > self._steps:
            reason = f"lies before step {self.step}, which is done"
            raise RecipeError("last_step", last_step, reason)
        self.losses = list(latest.losses) if latest else []
        if latest:
            _restore(model, latest)
        # Precision is ours (`computing`), for accelerate's is fixed for the process. So is its
        # device, which a group's processes go by, while one alone goes where its run is placed.
        alone = placement.processes == 1
        self._accelerator = Accelerator(mixed_precision="no", device_placement=not alone)
        if self._accelerator.num_processes != placement.processes:
            raise ProcessesError(self._accelerator.num_processes, placement.processes)
        self.device = torch.device(placement.device) if alone else self._accelerator.device
        model.to(self.device)  # type: ignore[arg-type]
        inner = make_optimizer(model, recipe.weight_decay)
        self._wrapped, self._optimizer = self._accelerator.prepare(model, inner)
        restore_optimizer(model, inner, latest.optimizer if latest else optimizer)
        self._saved = self.step if latest else -1

    def run(self, watch: Watch) -> None:
        """Train to the end of the recipe, or to the last step.

        Raises:
            StoppedTrainingError: `watch` asked for it; the state is saved.
            DivergedError: a loss is not finite.
            DiskFullError, ArtifactWriteError: a checkpoint cannot be written.
        """
        self._wrapped.train()
        self._tell(watch, None)
        with torch.random.fork_rng():
            while self.step < self._steps:
                rate = self._train_step()
                if self.step % self._recipe.checkpoint_steps == 0:
                    self._save()
                self._tell(watch, rate)
        self._save()

    def state(self) -> dict[str, Tensor]:
        """The optimizer's state, by the names of the weights."""
        return optimizer_tensors(self.model, self._inner)

    def _train_step(self) -> float:
        rows = torch.from_numpy(self.batches.batch(self.step)).to(self.device)
        torch.manual_seed(self._dropout_seed())
        rate = self._recipe.rate(self.step, self._done)
        for group in self._inner.param_groups:
            group["lr"] = rate
        loss = self._backward(rows)
        if not math.isfinite(loss):
            raise DivergedError(self.step + 1, loss)
        self._accelerator.clip_grad_norm_(self._wrapped.parameters(), self._recipe.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.step += 1
        self.losses = [*self.losses, loss][-_LOSSES:]
        return rate

    def _backward(self, rows: Tensor) -> float:
        """Gradients of the batch's mean loss; this process's share of it, in micro-batches."""
        processes = self._accelerator.num_processes
        mine = rows[self._accelerator.process_index :: processes]
        # Gradients are averaged over processes, whose shares may differ by a row.
        targets = rows.shape[0] * (rows.shape[1] - 1) / processes
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = torch.split(mine, self._recipe.micro_blocks or len(mine))
        for place, part in enumerate(parts):
            last = place == len(parts) - 1
            apart = nullcontext() if last else self._accelerator.no_sync(self._wrapped)
            with apart:
                with self.computing():
                    loss = summed_loss(self._wrapped, part) / targets
                self._accelerator.backward(loss)
            total += loss.detach()
        mean: Tensor = self._accelerator.reduce(total, "mean")
        return float(mean)

    def computing(self) -> AbstractContextManager[object]:
        """The precision of a forward: autocast to bfloat16, or as the weights are."""
        precision = self._recipe.precision
        if precision == "auto":
            precision = "bfloat16" if self.device.type == "cuda" else "float32"
        if precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def _tell(self, watch: Watch, rate: float | None) -> None:
        progress = Progress(
            "training",
            step=self.step,
            steps=self._steps,
            own_tokens=self.step * self._recipe.batch_tokens,
            loss=self.losses[-1] if self.losses else None,
            learning_rate=rate,
        )
        if self._agreed(watch(progress)):
            self._save()
            raise StoppedTrainingError(self.step)

    def _agreed(self, stopping: bool) -> bool:
        """What the first process says, to all of them."""
        if self._accelerator.num_processes == 1:
            return stopping
        said = torch.tensor(float(stopping), device=self.device)
        return bool(broadcast(said))

    def _save(self) -> None:
        if self._saved != self.step and self._accelerator.is_main_process:
            weights = stored_weights(self.model)
            self._checkpoints.save(self.step, self.losses, weights, self.state())
            self._saved = self.step

    def _dropout_seed(self) -> int:
        made_of = f"dropout:{self._recipe.seed}:{self.step}:{self._accelerator.process_index}"
        return int.from_bytes(sha256(made_of.encode()).digest()[:7], "big")

    @property
    def _inner(self) -> torch.optim.Optimizer:
        inner: torch.optim.Optimizer = self._optimizer.optimizer
        return inner


def summed_loss(model: nn.Module, rows: Tensor) -> Tensor:
    """Cross-entropy in nats, summed over the targets of rows (k, T + 1); below 0 is no target."""
    logits = model(input_ids=rows[:, :-1].clamp(min=0), use_cache=False).logits
    targets = rows[:, 1:].reshape(-1)
    loss: Tensor = functional.cross_entropy(
        logits.float().view(len(targets), -1), targets, ignore_index=NO_TARGET, reduction="sum"
    )
    return loss


def stored_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers that belong to a checkpoint, by name; ties under their first name."""
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: value for name, value in model.state_dict().items() if name in own}


def _restore(model: nn.Module, checkpoint: Checkpoint) -> None:
    own = stored_weights(model)
    if own.keys() != checkpoint.weights.keys():
        raise CheckpointStateError(checkpoint.folder, "has the weights of another model")
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(checkpoint.weights[name])
