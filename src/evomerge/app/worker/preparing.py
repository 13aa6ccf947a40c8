"""A job's pool made ready, whatever its space: weights loaded, or answers gathered."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from evomerge.app.db.engine import Database
from evomerge.app.output_task import output_task
from evomerge.app.schemas.remote import Remote
from evomerge.app.settings import Settings
from evomerge.app.worker.answer_book import AnswerBook
from evomerge.app.worker.benches import LoraBenches
from evomerge.app.worker.checkpoint_benches import CheckpointBenches
from evomerge.app.worker.gathering import Gathering, for_asking
from evomerge.app.worker.inputs import Data, metrics
from evomerge.app.worker.mixture_benches import MixtureBenches
from evomerge.app.worker.order import Desk, Order
from evomerge.app.worker.output_bench import OutputBench
from evomerge.app.worker.remote_bench import RemoteBench
from evomerge.app.worker.remote_places import Places
from evomerge.app.worker.teller import Teller
from evomerge.app.worker.till import Till
from evomerge.app.worker.workbench import Prepared
from evomerge.connectors.expert import Price
from evomerge.connectors.registry import Connectors


@dataclass(frozen=True)
class Preparer:
    """Makes pools ready.

    Attributes:
        settings: of the deployment.
        database: where answers are kept.
        connectors: the way to experts' APIs.
        lora, checkpoint: keep what was loaded last.
    """

    settings: Settings
    database: Database
    connectors: Connectors
    lora: LoraBenches
    checkpoint: CheckpointBenches

    async def prepare(self, order: Order, data: Data, desk: Desk) -> Prepared:
        """The pool of a job.

        Raises:
            JobError, ConnectorError, MergingError: the job cannot be run; says why.
            StoppedError: a stop was asked for.
            LeaseLostError: another worker has the job.
        """
        if order.spec.space == "output" and order.inputs.seed is not None:
            return await self._mixture(order, data, desk)
        if order.spec.space == "output":
            return await self._answers(order, data, desk)
        if order.spec.remote is not None:
            return await self._remote(order, order.spec.remote, data, desk)
        if order.spec.space == "checkpoint":
            return await asyncio.to_thread(self.checkpoint.prepare, order.spec, order.inputs, data)
        bench = await asyncio.to_thread(self.lora.bench, order.spec, order.inputs)
        return Prepared(bench, data)

    async def _mixture(self, order: Order, data: Data, desk: Desk) -> Prepared:
        teller = Teller(desk, self.settings.beat_seconds)
        benches = MixtureBenches(self.settings)
        ready = await asyncio.to_thread(benches.prepare, order, data, teller)
        read = 0 if ready.reading is None else ready.reading.tokens
        desk.ledger.note(
            f"The seed and {len(order.inputs.experts)} ELMs have read every example: {read} tokens "
            "that were not known before.",
            tokens=read,
        )
        return ready

    async def _answers(self, order: Order, data: Data, desk: Desk) -> Prepared:
        known = [one.known for one in order.inputs.experts]
        task = output_task(order.spec, data.search.examples[0].kind)
        budget = order.spec.budget
        async with self._book(order, desk) as book:
            gathering = Gathering(known, task, data, desk, book, budget)
            gathered = await gathering.run(order.gathered)
            calls = await book.usage()
        fusion = order.spec.fusion
        bench = await asyncio.to_thread(
            OutputBench, task, gathered, head=fusion.plausibility, price=fusion.price
        )
        taken = Data(gathered.search.side, gathered.held_out.side)
        return Prepared(
            bench,
            taken,
            ended_by=gathered.ended_by,
            left_out=gathered.left_out,
            calls=calls,
            free=True,
        )

    async def _remote(self, order: Order, remote: Remote, data: Data, desk: Desk) -> Prepared:
        places = Places(self.settings, self.lora)
        place = await asyncio.to_thread(places.place, order, self.connectors.caller)
        price = Price(remote.price.input, remote.price.output)
        who = remote.base_urls[0]
        till = await Till.of(self.database, desk.ledger, order.spec.budget, who, price)
        bench = RemoteBench(place, till)
        if data.held_out.examples:
            await asyncio.to_thread(bench.hold_back, metrics(order.spec), data.held_out.examples)
        return Prepared(bench, data, calls=till.calls)

    def _book(self, order: Order, desk: Desk) -> AnswerBook:
        ledger = desk.ledger
        return AnswerBook(
            self.database,
            ledger.lease,
            self.connectors,
            for_asking(order.spec.budget),
            lambda: ledger.seconds,
            owner=ledger.lease.owner,
            lease_seconds=self.settings.lease_seconds,
        )
