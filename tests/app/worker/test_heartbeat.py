from __future__ import annotations

from tests.app.worker.conftest import Shop
from tests.support import jobs

from evomerge.app.db.engine import SyncDatabase
from evomerge.app.db.repositories import queue
from evomerge.app.worker.heartbeat import Heartbeat


async def held(shop: Shop, owner: str) -> queue.Lease:
    async with shop.database.write() as session:
        lease = await queue.claim(session, owner, 1000.0, 10)
    assert lease is not None
    return lease


async def test_a_lease_is_prolonged_while_the_block_runs(shop: Shop) -> None:
    await shop.add()
    lease = await held(shop, "one")
    await shop.lapse()
    lapsed = (await jobs.get_job(shop.database)).lease_until
    beats = SyncDatabase(shop.database.url)

    async def prolonged() -> bool:
        until = (await jobs.get_job(shop.database)).lease_until
        return until is not None and lapsed is not None and until > lapsed + 900

    async with Heartbeat(beats, lease, 1000.0, 0.01) as heart:
        await jobs.until(prolonged)
    assert not heart.lost
    beats.dispose()


async def test_a_heart_stops_when_the_lease_is_lost(shop: Shop) -> None:
    await shop.add()
    first = await held(shop, "one")
    await shop.lapse()
    second = await held(shop, "two")
    beats = SyncDatabase(shop.database.url)

    async def lost() -> bool:
        return heart.lost

    async with Heartbeat(beats, first, 1000.0, 0.01) as heart:
        await jobs.until(lost)
    job = await jobs.get_job(shop.database)
    assert (job.lease_owner, job.lease_token) == ("two", second.token)
    beats.dispose()
