"""A worker process whose jobs only ask: `python -m tests.support.asker DATABASE_URL`.

A job's spec: `base_url` of the server, `numbers` of the questions from and to, `concurrency`, and
its `budget`. It runs until it is killed.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace

from tests.support.answers import ENDPOINT, EXPERT, question

from evomerge.app.db.engine import Database, SyncDatabase
from evomerge.app.schemas.spec import Budget
from evomerge.app.worker.answer_book import AnswerBook
from evomerge.app.worker.ledger import Ledger
from evomerge.app.worker.loop import Rhythm, Worker, owner_name
from evomerge.connectors.hosts import HostPolicy
from evomerge.connectors.limits import EndpointLimits
from evomerge.connectors.registry import Connectors

# Long enough that a worker on a busy machine does not lose a lease while it lives.
RHYTHM = Rhythm(lease=4.0, beat=0.2, poll=0.02, max_attempts=100)
POLICY = HostPolicy.of(["127.0.0.1"], ["127.0.0.0/8"])


async def ask(ledger: Ledger, database: Database, connectors: Connectors) -> None:
    """Ask all of a job's questions; its result is how many texts came back."""
    spec = (await ledger.open()).spec
    endpoint = replace(ENDPOINT, base_url=spec["base_url"])
    asked = [(question(number, endpoint=endpoint), EXPERT) for number in range(*spec["numbers"])]
    book = AnswerBook(
        database,
        ledger.lease,
        connectors,
        Budget.model_validate(spec.get("budget", {})),
        lambda: ledger.seconds,
        owner=ledger.lease.owner,
        lease_seconds=RHYTHM.lease,
    )
    async with book:
        outcomes = [one async for one in book.ask_all(asked, spec["concurrency"])]
    await ledger.succeed({"answers": len(outcomes)}, {}, "All is asked.")


async def main(url: str) -> None:
    database, beats = Database(url), SyncDatabase(url)
    limits = {"127.0.0.1": EndpointLimits(concurrency=64)}
    async with Connectors(POLICY, limits=limits) as connectors:

        async def run(ledger: Ledger) -> None:
            await ask(ledger, database, connectors)

        await Worker(database, beats, run, RHYTHM, asyncio.Event(), owner_name()).work()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
