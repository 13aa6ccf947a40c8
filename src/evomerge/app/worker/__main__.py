"""`python -m evomerge.app.worker`: one worker, with settings from the environment."""

from __future__ import annotations

import asyncio
import logging
import signal

from evomerge.app.settings import Settings
from evomerge.app.worker.process import work


async def main() -> None:
    """Work until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    await work(Settings(), stopping)


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(main())
