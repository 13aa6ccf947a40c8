"""Small matrices are multiplied fastest, and always alike, by one thread."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

# Thread counts belong to the process: were two threads to change and restore them crosswise,
# the second to leave would restore the count that the first had set.
_lock = threading.Lock()


@functools.cache
def _controller() -> ThreadpoolController:
    # Looking for the loaded libraries takes 10 ms, setting a limit on found ones 20 µs.
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Pin BLAS to one thread within; one thread of the process at a time."""
    with _lock, _controller().limit(limits=1, user_api="blas"):
        yield
