"""The average of a forest's ELMs, from its claim to its end."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import dataclass
from typing import Any

from evomerge.app.ensembles import Ensemble
from evomerge.app.schemas.forest_jobs import AverageResult
from evomerge.app.schemas.forest_specs import AverageSpec
from evomerge.app.worker import forest_files, forest_report
from evomerge.app.worker.artifacts import MANIFEST, MODEL_CARD, folder_of
from evomerge.app.worker.errors import JobError
from evomerge.app.worker.forest_order import ForestOrder
from evomerge.app.worker.forest_parts import read_parts
from evomerge.app.worker.forest_work import ForestWork
from evomerge.app.worker.spending import BudgetReachedError
from evomerge.app.worker.teller import Teller
from evomerge.merging.checkpoint.files import content_hash
from evomerge.merging.checkpoint.lineage import Lineage, merged_lineage, read_lineage
from evomerge.merging.forest import averages
from evomerge.merging.forest.prior import estimate
from evomerge.merging.storing import written_whole

_FRESH = "average"


@dataclass(frozen=True)
class AverageRun(ForestWork[AverageSpec]):
    """The run of one claimed job."""

    async def run(self) -> None:
        """Weigh the ELMs, average them, and end the job well.

        Raises:
            StoppedError: a stop was asked for; the job is to be released.
            LeaseLostError: another worker has the job.
            JobError, ConnectorError, MergingError, ForestError, EvaluationError, OSError: the job
                cannot succeed.
        """
        desk, teller = await self.begin()
        await asyncio.to_thread(forest_files.check_forest, self.order.forest)
        average = await asyncio.to_thread(self._weigh, teller)
        shown = ", ".join(f"{name} {weight:.4g}" for name, weight in average.weights.items())
        self.ledger.note(f"The average weighs {shown}.", weights=average.weights)
        await desk.passes({"stage": "averaging"})
        lineage = await asyncio.to_thread(self._average, average)
        await desk.passes({"stage": "storing"})
        result = await asyncio.to_thread(self._store, average, lineage)
        spec = self.order.spec
        await self.ledger.succeed(
            result, {"stage": "done"}, "The job succeeded.", serve_as=spec.serve_as
        )

    def _weigh(self, teller: Teller) -> AverageResult:
        """What each ELM weighs. Only development documents are read, if any are."""
        spec, forest = self.order.spec, self.order.forest
        names = [elm.name for elm in forest.elms]
        if isinstance(spec.weights, dict):
            custom = [spec.weights.get(name, 0.0) for name in names]
            weights = averages.average_weights("custom", len(names), custom=custom)
            return _result(names, weights, 0)
        posterior, documents = None, 0
        if spec.weights != "uniform":
            posterior, documents = self._posterior(names, teller)
        weights = averages.average_weights(spec.weights, len(names), posterior=posterior)
        return _result(names, weights, documents)

    def _posterior(self, names: list[str], teller: Teller) -> tuple[Any, int]:
        spec, forest = self.order.spec, self.order.forest
        if spec.corpus is None:
            return Ensemble.of(forest.ensemble).weights(names), 0
        from evomerge.app.worker.forest_reading import Reading

        (corpus,) = self.order.inputs.corpora
        parts = read_parts(corpus, spec.shares, spec.prior.documents, 0)
        reading = Reading(forest.elms, teller, spec.budget, self.settings, self.scratch)
        rows = reading.rows(parts.dev)
        try:
            read = [reading.read(name, rows) for name in names]
        except BudgetReachedError as reached:
            raise JobError(
                "budget_too_small",
                f"budget.{reached.budget} was reached before all ELMs had read the development "
                "documents",
                f"budget.{reached.budget}",
            ) from reached
        stacked = forest_report.stacked(read)
        return estimate(stacked, spec.prior.weight, spec.prior.documents), len(rows)

    def _average(self, made: AverageResult) -> Lineage:
        """Write the average into the scratch folder; what it comes from."""
        try:
            import torch

            from evomerge.merging.checkpoint.average import average
        except ModuleNotFoundError as error:
            raise JobError(
                "not_installed",
                f"averaging needs {error.name}, which this worker lacks: "
                "pip install 'evo-merging[local]'",
            ) from error
        forest, dtype = self.order.forest, self.order.spec.dtype
        folders = [elm.path for elm in forest.elms]
        weights = [made.weights[elm.name] for elm in forest.elms]
        lineage = merged_lineage(
            forest.seed_hash,
            [read_lineage(folder) for folder in folders],
            [elm.content_hash for elm in forest.elms],
            weights,
        )
        average(
            folders,
            weights,
            self.scratch / _FRESH,
            dtype=None if dtype is None else getattr(torch, dtype),
            lineage=lineage,
        )
        return lineage

    def _store(self, made: AverageResult, lineage: Lineage) -> dict[str, Any]:
        """Move the average to the job's artifacts, with a manifest and a card."""
        fresh = self.scratch / _FRESH
        digest = content_hash(fresh)
        manifest = {
            "job": self.order.job_id,
            "spec": self.order.spec.model_dump(mode="json"),
            "weights": made.weights,
            "elms": {elm.name: elm.content_hash for elm in self.order.forest.elms},
            "content_hash": digest,
        }
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n")
        (fresh / MODEL_CARD).write_text(_card(self.order, made), encoding="utf-8")
        folder = folder_of(self.settings.data_dir, self.order.job_id).absolute()
        with written_whole(folder) as target:
            for path in fresh.iterdir():
                path.rename(target / path.name)
        shutil.rmtree(fresh)
        return forest_report.result(
            self.versions,
            self.ledger.seconds,
            forest_files.artifacts(folder),
            checkpoint=(folder, digest, lineage),
            average=made,
        )


def _result(names: list[str], weights: Any, documents: int) -> AverageResult:
    shares = {name: float(weight) for name, weight in zip(names, weights, strict=True)}
    return AverageResult(weights=shares, dev_documents=documents)


def _card(order: ForestOrder[AverageSpec], made: AverageResult) -> str:
    lines = [
        "---",
        "library_name: transformers",
        "tags: [merge, branch-train-merge, evo-merging]",
        "---",
        f"# {order.spec.name or 'An average'}",
        "",
        f"The average of the weights of {len(made.weights)} expert language models of forest "
        f"{order.forest.name}, by Evo-Merging. manifest.json holds the whole spec and the hashes "
        "of every input.",
        "",
        "| ELM | domain | weight |",
        "|---|---|---|",
        *(
            f"| {elm.name} | {elm.domain} | {made.weights[elm.name]:.4g} |"
            for elm in order.forest.elms
        ),
        "",
    ]
    return "\n".join(lines)
