"""Runs beside each other: one process a core, one thread in each.

Small models gain little from a second thread, and runs of a forest need nothing of each other but
their parent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from threading import Thread

import torch
from benchmarks.btm.bench import Bench
from benchmarks.btm.plan import Model
from transformers.utils import logging

Say = Callable[[str], None]


@contextmanager
def pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each; what has not begun is dropped if the block fails."""
    executor = ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin)
    try:
        yield executor
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    executor.shutdown()


def _begin() -> None:
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End in the middle of whatever goes on, once the command was killed: it can be taken up."""
    if parent := parent_process():
        parent.join()
        os._exit(1)


def train_all(
    executor: ProcessPoolExecutor, bench: Bench, models: Iterable[Model], say: Say
) -> int:
    """Train every model that is not there, each after its parent; the tokens of those trained.

    Raises:
        TrainingError, CorpusError: of the first run that failed.
    """
    waiting = [model for model in dict.fromkeys(models) if not bench.folder(model).is_dir()]
    tokens = sum(model.tokens for model in waiting)
    say(f"{len(waiting)} models to train, {tokens:,} tokens")
    under_way: dict[Future[str], Model] = {}
    finished = 0
    while waiting or under_way:
        for model in _ready(bench, waiting):
            waiting.remove(model)
            under_way[executor.submit(_train, bench, model)] = model
        done, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for future in done:
            finished += under_way.pop(future).tokens
            say(f"{finished / tokens:4.0%} {future.result()}")
    return tokens


def _ready(bench: Bench, waiting: Sequence[Model]) -> list[Model]:
    """Those whose parent is there; what others wait for first, then the longest."""
    ready = [m for m in waiting if m.parent is None or bench.folder(m.parent).is_dir()]
    return sorted(ready, key=lambda model: (not model.is_seed, -model.tokens))


def _train(bench: Bench, model: Model) -> str:
    begun = time.monotonic()
    done = bench.train(model)
    seconds = time.monotonic() - begun
    if done is None:
        return f"{model.name}: there"
    speed = (
        f"{done.own_tokens:,} tokens in {seconds:.0f} s, {done.own_tokens / seconds:,.0f} a second"
    )
    return f"{model.name}: {speed}, training loss {done.train_loss:.3f}"
