"""BLAS is pinned within, and left as it was."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from evomerge.optimizers import blas
from evomerge.optimizers.blas import one_blas_thread


def threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_thread_within_and_the_old_count_after() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        with one_blas_thread():
            assert threads() == {1}
        assert threads() == before


def test_one_thread_of_the_process_at_a_time() -> None:
    """Entered crosswise, the second to leave would restore the one that the first had set."""
    with one_blas_thread():
        assert not blas._lock.acquire(blocking=False)
    assert blas._lock.acquire(blocking=False)
    blas._lock.release()


def test_an_error_within_leaves_nothing_behind() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        with pytest.raises(KeyError), one_blas_thread():
            raise KeyError
        assert threads() == before
        with one_blas_thread():
            assert threads() == {1}
