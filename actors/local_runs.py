"""Sealed runs of the memory of rated events as files of a local folder, mapped into memory. The store has them all; this
is what makes a search cost no round trip, and the next takeover on this machine no transfer.

A file bears its run's digest in its name, appears there whole or not at all, and is never changed: processes share the
folder, and any file may be deleted at any time. What it holds is checked against the digest before it is used.
"""

import asyncio
import logging
import mmap
import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

import xxhash

from actors.ports import RunHead
from engine.runs import Buffer

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

UNFINISHED_S: Final = 3600.0  # no copy takes as long to write


class LocalFolder:
    """See the module. Of more than `bytes_max`, what was used longest ago is deleted."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._unfinished = count()

    async def work(self, task: Callable[[], Result]) -> Result:
        return await asyncio.to_thread(task)

    def path(self, partition: int, head: RunHead) -> Path:
        """Where the copy of a run lies, if there is one."""
        return self._folder / f"{partition}-{head.bucket}-{head.generation}-{head.digest.hex()}.run"

    async def find(self, partition: int, head: RunHead) -> Buffer | None:
        return await asyncio.to_thread(_mapped, self.path(partition, head), head.digest)

    async def keep(self, partition: int, head: RunHead, rows: AsyncIterator[Buffer]) -> Buffer | None:
        path = self.path(partition, head)
        unfinished = self._folder / f".{os.getpid()}-{next(self._unfinished)}.unfinished"
        try:
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
            with await asyncio.to_thread(unfinished.open, "wb") as file:
                await asyncio.to_thread(file.write, head.outline)
                async for piece in rows:
                    await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(unfinished.replace, path)
            await asyncio.to_thread(self._trim, path)
        except OSError as error:
            _log.warning("no local copy of a run of %d identities: %s", head.count, error)
            return None
        finally:
            with suppress(OSError):
                unfinished.unlink()
        return await self.find(partition, head)

    def _trim(self, kept: Path) -> None:
        """Also what a process that died has left unfinished."""
        now_s = kept.stat().st_mtime
        for path in self._folder.glob(".*.unfinished"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < now_s - UNFINISHED_S:
                    path.unlink()
        found = []
        for path in self._folder.glob("*.run"):
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        size = sum(size for _, size, _ in found)
        for _, file_size, path in sorted(found):
            if size <= self._bytes_max:
                break
            if path != kept:
                path.unlink(missing_ok=True)
                size -= file_size


def _mapped(path: Path, digest: bytes) -> Buffer | None:
    try:
        with path.open("rb") as file:
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # not there, or empty
        return None
    if xxhash.xxh3_128_digest(whole) != digest:
        _log.warning("%s is damaged: it is deleted, and fetched again", path.name)
        path.unlink(missing_ok=True)
        return None
    with suppress(OSError):
        os.utime(path)  # used just now
    whole.madvise(mmap.MADV_RANDOM)
    return memoryview(whole)
