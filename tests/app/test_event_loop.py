import asyncio
import gc
import sys

import pytest
import uvloop

from evomerge.app import event_loop


async def kind() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def test_work_runs_on_uvloop_and_gives_its_result() -> None:
    assert event_loop.run(kind()) is uvloop.Loop


def test_where_uvloop_is_not_installed_pythons_own_loop_runs_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    assert event_loop.factory() is None
    assert not issubclass(event_loop.run(kind()), uvloop.Loop)


def test_what_the_work_raises_comes_through() -> None:
    async def fails() -> None:
        raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        event_loop.run(fails())


def test_what_is_loaded_is_out_of_the_collectors_sight() -> None:
    loaded = [object()]
    try:
        event_loop.spare_the_collector()
        assert not any(one is loaded for one in gc.get_objects())
    finally:
        gc.unfreeze()
    assert any(one is loaded for one in gc.get_objects())
