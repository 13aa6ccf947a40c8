"""Work spread over threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from evomerge.merging.parallel import for_each


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_does_every_item_once(threads: int) -> None:
    done: list[int] = []
    for_each(done.append, range(50))
    assert sorted(done) == list(range(50))


def test_works_on_as_many_threads_as_torch_may_use(threads: int) -> None:
    together = threading.Barrier(threads)
    for_each(lambda _: together.wait(timeout=30) and None, range(threads))


def test_raises_what_the_work_raises(threads: int) -> None:
    def work(item: int) -> None:
        if item == 7:
            raise KeyError(item)

    with pytest.raises(KeyError, match="7"):
        for_each(work, range(20))


def test_nothing_to_do_is_no_work(threads: int) -> None:
    for_each(lambda _: pytest.fail("called"), [])
