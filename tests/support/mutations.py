"""JSON values of nearly the right shape."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

OTHERS: tuple[Any, ...] = (None, True, -1, 0.5, "x", [], {}, [1], [None], [{}], {"id": None})
Path = tuple[Any, ...]


def mutations(whole: Any) -> Iterator[Any]:
    """For every node, the value with something else in its place."""
    for path in [(), *places(whole)]:
        for other in OTHERS:
            yield put(whole, path, other)


def places(value: Any) -> Iterator[Path]:
    """Paths to all nodes below; the first and the last stand for all members of a list."""
    members: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        members = list(value.items())
    elif isinstance(value, list) and value:
        members = [(at, value[at]) for at in sorted({0, len(value) - 1})]
    for name, inner in members:
        yield (name,)
        yield from ((name, *rest) for rest in places(inner))


def put(whole: Any, path: Path, other: Any) -> Any:
    """A copy with `other` at `path`."""
    if not path:
        return other
    made = copy.deepcopy(whole)
    inner = made
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = other
    return made
