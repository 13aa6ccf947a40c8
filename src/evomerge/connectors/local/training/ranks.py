"""One run in several processes of a machine, one a device: this one is the first.

The others are started here, take their rows of every batch, and end with the training, with this
process, or when one of them fails. Only the first tells the watch, writes checkpoints and
evaluates.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import torch
from accelerate.state import AcceleratorState, PartialState

from evomerge.connectors.local.training.errors import (
    DivergedError,
    LostRankError,
    StoppedTrainingError,
)
from evomerge.connectors.local.training.plan import Plan
from evomerge.connectors.local.training.progress import Progress, Watch, unwatched

_HOST = "127.0.0.1"
_PATIENCE = 60.0


@contextmanager
def ranks(plan: Plan) -> Iterator[Sequence[subprocess.Popen[str]]]:
    """Start the other processes of a plan; whatever happens, none outlives the block."""
    count = plan.placement.processes
    if count == 1:
        yield []
        return
    with ExitStack() as stack:
        _forget_group()
        stack.callback(_forget_group)
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(plan.threads)
        port = _free_port()
        others = [stack.enter_context(_other(plan, rank, port)) for rank in range(1, count)]
        stack.enter_context(_environment(_names(plan, 0, port)))
        yield others


def held_together(watch: Watch, others: Sequence[subprocess.Popen[str]]) -> Watch:
    """A watch that also sees that the other processes are there.

    It raises LostRankError where one has ended before the training did.
    """

    def watched(progress: Progress) -> bool:
        for rank, process in enumerate(others, 1):
            if process.poll():
                raise LostRankError(rank, process.returncode)
        return watch(progress)

    return watched


def main() -> None:
    """Another process: its plan comes by standard input, whose end is this process's end."""
    plan = Plan.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_the_first, daemon=True).start()
    torch.set_num_threads(plan.threads)
    with suppress(StoppedTrainingError, DivergedError):  # The first process says so.
        plan.trainer().run(unwatched)


def _end_with_the_first() -> None:
    sys.stdin.read()
    os._exit(0)


@contextmanager
def _other(plan: Plan, rank: int, port: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "evomerge.connectors.local.training.ranks"],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, **_names(plan, rank, port)},
    )
    assert process.stdin is not None
    try:
        process.stdin.write(plan.to_json() + "\n")
        process.stdin.flush()
        yield process
    finally:
        process.kill()
        process.wait(_PATIENCE)
        process.stdin.close()


def _names(plan: Plan, rank: int, port: int) -> dict[str, str]:
    """What torch.distributed and accelerate read."""
    count = plan.placement.processes
    return {
        "ACCELERATE_USE_CPU": str(plan.placement.on_cpu).lower(),
        "OMP_NUM_THREADS": str(plan.threads),  # Without it, accelerate sets threads of its own.
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": _HOST,
        "MASTER_PORT": str(port),
    }


@contextmanager
def _environment(names: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _forget_group() -> None:
    """accelerate keeps its group for as long as the process lives; ours is a run's.

    It has no public way to forget it, but the one that its own tests take.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    AcceleratorState._reset_state()
    PartialState._reset_state()


if __name__ == "__main__":
    main()
