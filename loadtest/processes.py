"""Shards and controllers as plain processes, each with settings of its own: started, signalled, ended."""

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from config.settings import Settings

END_TIMEOUT_S: Final = 90.0  # of a process that was told to end; a healthy one needs a second or two
_ROOT: Final = Path(__file__).resolve().parents[1]


class ProcessFailed(Exception):
    """A process did not join, or did not end in order; the message is its log."""


class Process:
    """One shard or controller (`loadtest/process_child.py`); what it logs goes to `log_path`."""

    def __init__(self, role: str, name: str, settings: Settings, folder: Path) -> None:
        """`role` is "shard" or "controller"; `folder` gets the log, and the lock files of all processes."""
        self.log_path = folder / f"{name}.log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "loadtest.process_child"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        given = {"role": role, "name": name, "settings": settings.reveal(), "lock_dir": str(folder / "locks")}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        self.incarnation = ""  # of a shard that has joined

    async def joined(self) -> None:
        """Return once the shard is a member. Raises ProcessFailed."""
        assert self.process.stdout is not None
        self.incarnation = (await asyncio.to_thread(self.process.stdout.readline)).strip()
        if not self.incarnation:
            raise ProcessFailed(self.log_path.read_text())

    def signal(self, number: signal.Signals) -> None:
        """To this process alone."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Its exit status, once it has ended."""
        return await asyncio.to_thread(self.process.wait, END_TIMEOUT_S)

    async def end(self) -> None:
        """In order: it hands everything over. Raises ProcessFailed."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if await self.ended() != 0:
            raise ProcessFailed(self.log_path.read_text())

    def close(self) -> None:
        """However the run has gone, nothing is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
