"""One life of a shard process, and proof of its death.

A living process holds an exclusive flock on a file of its own; the kernel releases it the instant the process is gone,
however it went. Whoever can take that lock has proof of death, and need not wait for the lease to run out.
"""

import ctypes
import fcntl
import os
import secrets
import socket
from pathlib import Path
from typing import IO, Final

_M_MMAP_THRESHOLD: Final = -3  # of malloc.h


class Incarnation:
    """This process's life. `name` is unique over all lives of all shards."""

    def __init__(self, shard: str, lock_dir: Path) -> None:
        self.shard = shard
        self.name = f"{shard}.{secrets.token_hex(6)}"
        self.host = socket.gethostname()
        self.pid = os.getpid()
        self.lock_path = str(lock_dir / f"{self.name}.lock")
        self._lock: IO[bytes] | None = None

    def begin(self) -> None:
        """Take the lock. Children do not inherit it: it must not outlive this process."""
        Path(self.lock_path).parent.mkdir(parents=True, exist_ok=True)
        self._lock = Path(self.lock_path).open("wb")  # noqa: SIM115 - held for as long as the process lives
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def end(self) -> None:
        """Release the lock: this life has handed everything over."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def process_load() -> tuple[int, float]:
    """Bytes of memory in use, and seconds of CPU taken so far, by this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    taken = os.times()
    return pages * os.sysconf("SC_PAGESIZE"), taken.user + taken.system


def give_back_large_blocks() -> None:
    """Let free memory of a megabyte or more return to the system at once. glibc learns to keep such blocks, up to 64 MB and
    what lies between them, from the arrays that sealing a run takes for a moment. Elsewhere it does nothing."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)


class LockDeaths:
    """The port `Deaths` for processes of this host; of other hosts nothing is known before their lease runs out."""

    def __init__(self) -> None:
        self._host = socket.gethostname()

    def proven(self, host: str, lock_path: str) -> bool:
        """Whether the process that held the lock is certainly gone."""
        if host != self._host:
            return False
        try:
            with Path(lock_path).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # held, or no such file: no proof
            return False
        return True
