"""The training of a seed or an ELM, from its claim to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.app.errors import ApiError
from evomerge.app.schemas.forest_jobs import TrainingResult
from evomerge.app.schemas.forest_specs import BranchTrainSpec, TrainingSpec, TrainSeedSpec
from evomerge.app.services.checkpoints import check_seed
from evomerge.app.services.forest_job_checks import recipe_of
from evomerge.app.worker import forest_files, forest_joining, forest_report
from evomerge.app.worker.errors import JobError, StoppedError
from evomerge.app.worker.forest_work import ForestWork
from evomerge.app.worker.ledger import Also
from evomerge.app.worker.teller import Teller
from evomerge.app.worker.training_watch import TrainingWatch
from evomerge.connectors.local.training.errors import (
    ChangedCorpusError,
    ChangedRunError,
    PlacementError,
    RecipeError,
    StoppedTrainingError,
    TooFewTokensError,
)
from evomerge.connectors.local.training.recipe import Recipe

if TYPE_CHECKING:
    from evomerge.connectors.local.training.run import Trained

_FRESH = "elm"
# What a training leaves in its scratch folder once it has begun, and once its start is chosen.
_RECORD, _START = "run", "start"


@dataclass(frozen=True)
class TrainRun(ForestWork[TrainingSpec]):
    """The run of one claimed job."""

    async def run(self) -> None:
        """Train, keep the checkpoint, let it join its forest, and end the job well.

        Raises:
            StoppedError: a stop was asked for; the job is to be released.
            LeaseLostError: another worker has the job.
            JobError, ConnectorError, MergingError, EvaluationError, OSError: the job cannot
                succeed.
        """
        _, teller = await self.begin(**{**self.order.progress, "stage": "loading"})
        await asyncio.to_thread(self._check, teller)
        reported = int(self.order.progress.get("reported_step", 0))
        watch = TrainingWatch(teller, reported, self.order.spec.budget.seconds)
        with _told():
            trained, late = await self._train(watch)
        recipe = recipe_of(self.order.spec.recipe)
        ended_by = self._ended_by(trained.steps, recipe, late)
        if ended_by is not None:
            self.ledger.note(
                f"The budget of {ended_by} was reached after step {trained.steps} of "
                f"{recipe.steps}: the ELM is kept as it was trained so far.",
                level="warn",
                budget=ended_by,
            )
        folder = await asyncio.to_thread(
            forest_files.keep, trained.folder, self.settings.data_dir, trained.content_hash
        )
        await self._succeed(trained, folder, ended_by, watch.pace)

    def _check(self, teller: Teller) -> None:
        """Hold what is read to what the job was created with.

        An earlier attempt's documents are held to by the training itself; once a start was
        chosen, nothing of the forest is read any more.
        """
        if not (self.scratch / _RECORD).is_dir():
            forest_files.check_corpora(
                self.order.inputs.corpora, partial(teller.passes, {"stage": "reading"})
            )
        if self.order.inputs.forest is not None and not (self.scratch / _START).is_dir():
            forest_files.check_forest(self.order.inputs.forest)

    async def _train(self, watch: TrainingWatch) -> tuple[Trained, bool]:
        """What was trained, and whether time ended it."""
        train = self._training(watch)
        try:
            return await asyncio.to_thread(train, last_step=self._last_step()), False
        except StoppedTrainingError as stopped:
            if not watch.late:
                raise StoppedError from stopped
            if not stopped.step:
                raise JobError(
                    "budget_too_small",
                    f"budget.seconds={self.order.spec.budget.seconds}: the time was up before "
                    "the first step",
                    "budget.seconds",
                ) from stopped
            last = stopped.step
        watch.no_longer()
        try:
            return await asyncio.to_thread(train, last_step=last), True
        except StoppedTrainingError as stopped:
            raise StoppedError from stopped

    def _training(self, watch: TrainingWatch) -> Callable[..., Trained]:
        # Here, not above: the service must do without torch until a job needs it.
        try:
            from evomerge.connectors.local.training import run as training
        except ModuleNotFoundError as error:
            raise JobError(
                "not_installed",
                f"training needs {error.name}, which this worker lacks: "
                "pip install 'evo-merging[local]'",
            ) from error
        spec, inputs = self.order.spec, self.order.inputs
        corpora = forest_files.corpora(inputs.corpora)
        common: dict[str, Any] = {
            "scratch": self.scratch,
            "out": self.scratch / _FRESH,
            "watch": watch,
            "threads": self.settings.threads,
            "processes": self.order.spec.processes,
            "device": self.settings.device,
        }
        recipe = recipe_of(spec.recipe)
        if isinstance(spec, TrainSeedSpec):
            shape = spec.architecture.model_dump(exclude={"tokenizer"})
            architecture = training.Architecture(**shape, tokenizer=inputs.tokenizer)
            return partial(training.train_seed, corpora, architecture, recipe, **common)
        elms = [
            training.Elm(elm.name, elm.path, elm.domain or None)
            for elm in forest_files.lineage_of(self.order.forest)
        ]
        return partial(
            training.branch_train,
            elms,
            corpora[0],
            recipe,
            start=spec.start,
            optimizer=spec.optimizer,
            **common,
        )

    def _last_step(self) -> int | None:
        """Where budgets of steps and tokens end the training."""
        budget, recipe = self.order.spec.budget, recipe_of(self.order.spec.recipe)
        limits = [] if budget.steps is None else [budget.steps]
        if budget.tokens is not None:
            limits.append(budget.tokens // recipe.batch_tokens)
        return min(limits, default=None)

    def _ended_by(self, steps: int, recipe: Recipe, late: bool) -> str | None:
        if steps >= recipe.steps:
            return None
        if late:
            return "seconds"
        return "steps" if steps == self.order.spec.budget.steps else "tokens"

    async def _succeed(
        self, trained: Trained, folder: Path, ended_by: str | None, pace: float | None
    ) -> None:
        recipe = recipe_of(self.order.spec.recipe)
        training = TrainingResult(
            planned_steps=recipe.steps,
            perplexity=forest_report.finite(trained.perplexity),
            **{
                name: getattr(trained, name)
                for name in TrainingResult.model_fields
                if name not in ("planned_steps", "perplexity")
            },
        )
        files = await asyncio.to_thread(forest_files.artifacts, folder)
        result = forest_report.result(
            self.versions,
            self.ledger.seconds,
            files,
            ended_by=ended_by,
            checkpoint=(folder, trained.content_hash, trained.lineage),
            training=training,
        )
        also = await asyncio.to_thread(self._joining, trained, folder)
        progress = self._done(trained, recipe, pace)
        shown = "" if training.perplexity is None else f", perplexity {training.perplexity:.4g}"
        message = f"The job succeeded: {trained.steps} steps{shown}."
        await self.ledger.succeed(result, progress, message, also=also)

    def _done(self, trained: Trained, recipe: Recipe, pace: float | None) -> dict[str, Any]:
        return {
            "stage": "done",
            "step": trained.steps,
            "planned_steps": recipe.steps,
            "tokens": trained.own_tokens,
            "planned_tokens": recipe.own_tokens,
            "loss": forest_report.finite(trained.train_loss),
            "tokens_per_second": pace or self.order.progress.get("tokens_per_second"),
        }

    def _joining(self, trained: Trained, folder: Path) -> Also:
        spec = self.order.spec
        if isinstance(spec, BranchTrainSpec):
            name = self.order.inputs.elm or spec.corpus.domain
            elm = forest_joining.new_elm(
                name,
                spec.corpus.domain,
                folder,
                trained.content_hash,
                trained.lineage,
                self.order.job_id,
            )
            return forest_joining.elm_joins(self.order.forest, elm)
        if spec.forest is None:
            return forest_joining.kept(folder)
        try:
            seed = check_seed(folder, "seed")
        except ApiError as error:
            raise JobError(error.code, error.message, error.param) from error
        return forest_joining.forest_begins(spec.forest, seed, folder, {})


@contextmanager
def _told() -> Iterator[None]:
    """Say of what is wrong with a training which field of the spec is at fault.

    Raises:
        JobError: something is.
    """
    try:
        yield
    except TooFewTokensError as error:
        raise JobError("corpus_too_small", str(error), "recipe.block_tokens") from error
    except RecipeError as error:
        raise JobError("invalid_recipe", str(error), f"recipe.{error.field}") from error
    except PlacementError as error:
        param = "processes" if error.field == "processes" else None  # A device is the worker's.
        raise JobError("invalid_placement", str(error), param) from error
    except (ChangedCorpusError, ChangedRunError) as error:
        raise JobError("input_changed", str(error)) from error
