"""What becomes of an actor whose loop has broken. On a real Ray: tests/integration/test_cluster.py."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from actors.cluster import _ControllerActor, shard_names
from config.settings import Settings


class Process:
    """A controller that goes on until it is told to stop, or breaks."""

    breaks = False

    def __init__(self, *_: object) -> None:
        self._stopped = asyncio.Event()

    async def start(self) -> None: ...

    async def wait(self) -> None:
        if self.breaks:
            raise RuntimeError("a fault of ours")
        await self._stopped.wait()

    async def stop(self) -> None:
        self._stopped.set()


async def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[_ControllerActor, "asyncio.Future[int]"]:
    """The actor, and how it ended its process."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr("actors.cluster.ControllerProcess", Process)
    monkeypatch.setattr("actors.cluster.REVIVE_LOOK_S", 0.001)
    monkeypatch.setattr("actors.cluster.os._exit", ended.set_result)
    actor = _ControllerActor.__new__(_ControllerActor)
    await actor.__init__(Settings().reveal(), str(tmp_path), "test")  # type: ignore[misc]  # as Ray makes it
    return actor, ended


def everybody(_: str) -> list[str]:
    return shard_names(8)


def unheard_of(_: str) -> list[str]:
    raise ValueError("what Ray says of nothing")


@pytest.mark.parametrize(("breaks", "look"), [(True, everybody), (False, unheard_of)])
async def test_a_controller_that_breaks_ends_so_that_ray_makes_it_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, breaks: bool, look: Any
) -> None:
    """Alive, it would place nothing, or make no shard anew, and nobody would know."""
    monkeypatch.setattr("actors.cluster._actors_of", look)
    monkeypatch.setattr(Process, "breaks", breaks)
    _, ended = await made(monkeypatch, tmp_path)
    async with asyncio.timeout(10):
        assert await ended == 1


async def test_a_controller_that_is_drained_ends_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("actors.cluster._actors_of", everybody)
    actor, ended = await made(monkeypatch, tmp_path)
    await asyncio.sleep(0.01)
    await actor.drain()
    await asyncio.sleep(0.01)
    assert not ended.done()
