"""The clustering of documents without domains, from its claim to its end.

Nothing is kept on the way: a job that was interrupted begins again, and comes to the same clusters.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from evomerge.app.ensembles import StoredRouter
from evomerge.app.routing import ROUTER, router_hash
from evomerge.app.schemas.forest_jobs import ClusteringResult, ClusterResult
from evomerge.app.schemas.forest_specs import ClusterSpec
from evomerge.app.services.forest_job_corpora import cluster_file
from evomerge.app.worker import forest_files, forest_joining, forest_report
from evomerge.app.worker.artifacts import folder_of
from evomerge.app.worker.errors import JobError
from evomerge.app.worker.forest_parts import held_to
from evomerge.app.worker.forest_work import ForestWork
from evomerge.app.worker.teller import Teller
from evomerge.evaluation.corpus import Corpus, Part, Shares, read_content
from evomerge.evaluation.errors import MissingLibraryError
from evomerge.merging.forest.clusters import cluster
from evomerge.merging.forest.errors import ClusterError
from evomerge.merging.forest.router import Router
from evomerge.merging.storing import written_whole


@dataclass(frozen=True)
class _Kept:
    """A document that is not another's copy, and what it is for."""

    text: str
    part: Part


@dataclass(frozen=True)
class ClusterRun(ForestWork[ClusterSpec]):
    """The run of one claimed job."""

    async def run(self) -> None:
        """Cluster the documents, keep them and the router, and end the job well.

        Raises:
            StoppedError: a stop was asked for; the job is to be released.
            LeaseLostError: another worker has the job.
            JobError, MergingError, ForestError, EvaluationError, OSError: the job cannot succeed.
        """
        desk, teller = await self.begin(stage="reading")
        documents, duplicates = await asyncio.to_thread(self._read, teller)
        count: dict[str, Any] = {"documents": len(documents), "duplicates": duplicates}
        self.ledger.note(f"{len(documents)} documents were read.", **count)
        await desk.passes({"stage": "clustering", **count})
        tick = partial(teller.passes, {"stage": "clustering", **count})
        router, labels = await asyncio.to_thread(self._cluster, documents, tick)
        await desk.passes({"stage": "storing", **count})
        made = await asyncio.to_thread(self._store, documents, labels, router, duplicates)
        files = await asyncio.to_thread(forest_files.artifacts, self._folder)
        result = forest_report.result(self.versions, self.ledger.seconds, files, clustering=made)
        sizes = [one.documents for one in made.clusters]
        message = f"The job succeeded: clusters of {min(sizes)} to {max(sizes)} documents."
        hashes = tuple(one.content_hash for one in made.clusters)
        stored = StoredRouter(self.order.job_id, made.router_hash, hashes)
        also = forest_joining.router_joins(self.order.forest, stored)
        await self.ledger.succeed(result, {"stage": "done", **count}, message, also=also)

    @property
    def _folder(self) -> Path:
        return folder_of(self.settings.data_dir, self.order.job_id).absolute()

    def _read(self, teller: Teller) -> tuple[list[_Kept], int]:
        """Every document once, and how many copies were passed over."""
        asked = self.order.spec.shares
        cut = Shares(dev=asked.dev_share, test=asked.test_share)
        found: dict[bytes, _Kept] = {}
        count = 0
        for corpus in self.order.inputs.corpora:
            for document in held_to(corpus):
                teller.passes({"stage": "reading", "documents": len(found)})
                count += 1
                kept = _Kept(document.text, cut.part(document.digest))
                found.setdefault(document.digest, kept)
        return list(found.values()), count - len(found)

    def _cluster(
        self, documents: Sequence[_Kept], tick: Callable[[], None]
    ) -> tuple[Router, list[int]]:
        """The router, and the cluster of each document.

        Only training documents make clusters; the others go to those that the router finds.
        """
        spec = self.order.spec
        training = [document.text for document in documents if document.part == "train"]
        try:
            found = cluster(
                training,
                spec.clusters,
                seed=spec.seed,
                dimensions=spec.dimensions,
                words=spec.words,
                temperature=spec.temperature,
                balance=spec.balance,
                tick=tick,
            )
        except ClusterError as error:
            if error.field == "clusters":
                raise JobError(
                    "too_few_documents", f"{error} that are for training", "clusters"
                ) from error
            raise JobError("no_words", str(error), "corpora") from error
        except MissingLibraryError as error:
            raise JobError("not_installed", str(error)) from error
        trained, labels = iter(found.labels.tolist()), []
        for document in documents:
            tick()
            if document.part == "train":
                labels.append(next(trained))
            else:
                labels.append(int(found.router.log_weights([document.text])[0].argmax()))
        return found.router, labels

    def _store(
        self, documents: Sequence[_Kept], labels: Sequence[int], router: Router, duplicates: int
    ) -> ClusteringResult:
        """Write a corpus for each cluster, and the router: all of it or nothing."""
        for unfinished in self._folder.parent.glob(f".{self._folder.name}.*"):
            shutil.rmtree(unfinished, ignore_errors=True)  # of a worker that was killed here
        with written_whole(self._folder) as fresh:
            clusters = [
                _stored(
                    cluster_file(fresh, number),
                    number,
                    [one for one, label in zip(documents, labels, strict=True) if label == number],
                )
                for number in range(router.clusters)
            ]
            router.save(fresh / ROUTER)
            digest = router_hash(fresh / ROUTER)
        return ClusteringResult(
            clusters=clusters,
            duplicates=duplicates,
            words=len(router.words),
            dimensions=router.centres.shape[1],
            router_hash=digest,
        )


def _stored(file: Path, number: int, documents: Sequence[_Kept]) -> ClusterResult:
    file.parent.mkdir(exist_ok=True)
    with file.open("w", encoding="utf-8") as stream:
        for document in documents:
            row: dict[str, Any] = {"text": document.text}
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    content = read_content(Corpus(f"cluster-{number}", file))
    parts = Counter(document.part for document in documents)
    return ClusterResult(
        cluster=number,
        documents=content.documents,
        train_documents=parts["train"],
        dev_documents=parts["dev"],
        test_documents=parts["test"],
        bytes=content.bytes,
        content_hash=content.content_hash,
    )
