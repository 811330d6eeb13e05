"""Proof of death: an flock that real processes hold, and that the kernel takes from them when they are killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from actors.incarnation import Incarnation, LockDeaths, process_load

ROOT = Path(__file__).resolve().parents[2]
HOST = socket.gethostname()

LIFE = textwrap.dedent(
    """
    import json, subprocess, sys
    from pathlib import Path
    from actors.incarnation import Incarnation

    life = Incarnation("shard-0", Path(sys.argv[1]))
    life.begin()
    # Every inheritable descriptor goes to the child: the lock's must not be one.
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
    print(json.dumps({"lock": life.lock_path, "child": child.pid}), flush=True)
    sys.stdin.read()
    """
)


class Life:
    """A process that holds its lock, and a child that it started meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", LIFE, str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.lock_path: str = told["lock"]
        self.child = psutil.Process(told["child"])

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    started = Life(tmp_path / "locks")
    yield started
    started.kill()
    started.child.kill()
    for pipe in (started.process.stdin, started.process.stdout):
        assert pipe is not None
        pipe.close()


def test_a_killed_process_is_proven_dead_and_a_living_one_is_not(life: Life) -> None:
    deaths = LockDeaths()
    assert not deaths.proven(HOST, life.lock_path)
    life.kill()
    assert deaths.proven(HOST, life.lock_path)
    assert deaths.proven(HOST, life.lock_path), "asking takes nothing away"


def test_a_stopped_process_is_not_dead(life: Life) -> None:
    life.process.send_signal(signal.SIGSTOP)
    assert not LockDeaths().proven(HOST, life.lock_path)
    life.process.send_signal(signal.SIGCONT)


def test_a_child_that_outlives_the_process_does_not_keep_the_lock(life: Life) -> None:
    life.kill()
    assert life.child.is_running()
    assert LockDeaths().proven(HOST, life.lock_path)


def test_of_another_host_nothing_is_known(life: Life) -> None:
    life.kill()
    assert not LockDeaths().proven("another-host", life.lock_path)


def test_a_lock_file_that_is_not_there_proves_nothing(tmp_path: Path) -> None:
    assert not LockDeaths().proven(HOST, str(tmp_path / "never.lock"))


def test_a_life_that_ended_in_order_holds_its_lock_no_more(tmp_path: Path) -> None:
    life = Incarnation("shard-0", tmp_path / "made" / "on" / "demand")
    life.begin()
    assert not LockDeaths().proven(HOST, life.lock_path)
    life.end()
    assert LockDeaths().proven(HOST, life.lock_path)
    life.end()


def test_every_life_has_a_name_of_its_own(tmp_path: Path) -> None:
    lives = [Incarnation("shard-0", tmp_path) for _ in range(100)]
    assert len({life.name for life in lives}) == 100
    assert all(life.name.startswith("shard-0.") for life in lives)
    assert lives[0].pid == os.getpid() and lives[0].host == HOST


def test_what_a_process_uses_is_what_the_system_says() -> None:
    rss_bytes, cpu_s = process_load()
    seen = psutil.Process()
    assert abs(rss_bytes - seen.memory_info().rss) < 20_000_000
    times = seen.cpu_times()
    assert 0 < cpu_s <= times.user + times.system + 0.1


KEPT = textwrap.dedent(
    """
    import sys
    from actors.incarnation import give_back_large_blocks, process_load

    if sys.argv[1] == "given back":
        give_back_large_blocks()
    before = process_load()[0]
    block = b"x" * (8 << 20)
    del block  # from now on glibc keeps such blocks
    block = b"x" * (8 << 20)
    behind = b"x" * 100_000
    del block
    print(process_load()[0] - before)
    """
)


@pytest.mark.parametrize(("word", "low", "high"), [("given back", 0, 4 << 20), ("as ever", 7 << 20, 16 << 20)])
def test_large_blocks_that_are_free_are_no_longer_in_memory(word: str, low: int, high: int) -> None:
    """The second case shows that there is something to give back."""
    shown = subprocess.run([sys.executable, "-c", KEPT, word], cwd=ROOT, check=True, capture_output=True, text=True)
    assert low <= int(shown.stdout) < high
