"""The evaluation of a forest, from its claim to its end."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evomerge.app.ensembles import Ensemble
from evomerge.app.routing import clusters_of, load_router
from evomerge.app.schemas.forest_jobs import EvaluationResult
from evomerge.app.schemas.forest_specs import EvaluateSpec
from evomerge.app.worker import forest_files, forest_report, forest_table
from evomerge.app.worker.artifacts import folder_of
from evomerge.app.worker.errors import JobError
from evomerge.app.worker.forest_parts import Parts, read_parts
from evomerge.app.worker.forest_work import ForestWork
from evomerge.app.worker.spending import BudgetReachedError
from evomerge.app.worker.teller import Teller
from evomerge.merging.storing import written_whole

if TYPE_CHECKING:
    from evomerge.app.worker.forest_scores import DomainScores, Routed

REPORT = "report.json"


@dataclass(frozen=True)
class EvaluateRun(ForestWork[EvaluateSpec]):
    """The run of one claimed job."""

    async def run(self) -> None:
        """Let every model read every domain, and end the job well.

        Raises:
            StoppedError: a stop was asked for; the job is to be released.
            LeaseLostError: another worker has the job.
            JobError, ConnectorError, MergingError, ForestError, EvaluationError, OSError: the job
                cannot succeed.
        """
        _, teller = await self.begin()
        await asyncio.to_thread(forest_files.check_forest, self.order.forest)
        parts = await asyncio.to_thread(self._parts)
        scores, tokens, ended_by = await asyncio.to_thread(self._score, parts, teller)
        if ended_by is not None:
            self.ledger.note(
                f"The budget of {ended_by} was reached after {len(scores)} of {len(parts)} "
                "domains: the others are left out.",
                level="warn",
                budget=ended_by,
            )
        result = await asyncio.to_thread(self._finished, scores, tokens, ended_by)
        progress = {"stage": "done", **_counts(len(scores), len(parts)), "tokens": tokens}
        await self.ledger.succeed(result, progress, "The job succeeded.")

    def _parts(self) -> list[Parts]:
        """Every domain's documents, before anything is read by a model."""
        spec = self.order.spec
        return [
            read_parts(corpus, spec.shares, spec.prior.documents, spec.test_documents)
            for corpus in self.order.inputs.corpora
        ]

    def _score(
        self, parts: list[Parts], teller: Teller
    ) -> tuple[list[DomainScores], int, str | None]:
        """The domains that were read, the tokens of it, and the budget that left others out."""
        try:
            from evomerge.app.worker.forest_reading import Reading
            from evomerge.app.worker.forest_scores import Scorer
        except ModuleNotFoundError as error:
            raise JobError(
                "not_installed",
                f"reading needs {error.name}, which this worker lacks: "
                "pip install 'evo-merging[local]'",
            ) from error
        spec, forest = self.order.spec, self.order.forest
        models = forest_files.lineage_of(forest)
        reading = Reading(models, teller, spec.budget, self.settings, self.scratch)
        scorer = Scorer(spec, models, reading, self.scratch, self._routed())
        done: list[DomainScores] = []
        for domain in parts:
            reading.tell(**_counts(len(done), len(parts)), domain=domain.domain)
            try:
                done.append(scorer.score(domain))
            except BudgetReachedError as reached:
                if not done:
                    raise JobError(
                        "budget_too_small",
                        f"budget.{reached.budget} was reached before all models had read a single "
                        "domain",
                        f"budget.{reached.budget}",
                    ) from reached
                return done, reading.tokens, reached.budget
            teller.tell(reading.progress, done[-1].note())
        return done, reading.tokens, None

    def _routed(self) -> Routed | None:
        """What the forest's router says, where it is asked; Raises ForestError: it has gone."""
        from evomerge.app.worker.forest_scores import Routed
        from evomerge.connectors.local.forest.routing import Routing

        ensemble = Ensemble.of(self.order.forest.ensemble)
        if "router" not in self.order.spec.weightings or ensemble.router is None:
            return None
        router = load_router(self.settings.data_dir, ensemble.router)
        found = clusters_of(ensemble, [elm.corpus_hash for elm in self.order.forest.elms])
        voices = [(place, one) for place, one in enumerate(found) if one is not None]
        places, clusters = zip(*voices, strict=True)
        return Routed(places, Routing(router, clusters))

    def _finished(
        self, scores: list[DomainScores], tokens: int, ended_by: str | None
    ) -> dict[str, Any]:
        found = forest_table.evaluation(self.order.spec, self.order.forest, scores, tokens)
        folder = folder_of(self.settings.data_dir, self.order.job_id)
        with written_whole(folder) as fresh:
            report = self._report(found)
            (fresh / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
        return forest_report.result(
            self.versions,
            self.ledger.seconds,
            forest_files.artifacts(folder),
            ended_by=ended_by,
            evaluation=found,
        )

    def _report(self, found: EvaluationResult) -> dict[str, Any]:
        forest = self.order.forest
        return {
            "job": self.order.job_id,
            "forest": forest.name,
            "spec": self.order.spec.model_dump(mode="json"),
            "seed": forest.seed_hash,
            "elms": {elm.name: elm.content_hash for elm in forest.elms},
            "corpora": {one.domain: one.content_hash for one in self.order.inputs.corpora},
            **found.model_dump(mode="json"),
        }


def _counts(done: int, planned: int) -> dict[str, int]:
    return {"domains": done, "planned_domains": planned}
