"""Starts the processes of the embedded stack and makes sure that none of them outlives its run.

Every child is written to `children.jsonl` in the run folder, with its pid and start time, before anyone uses it. A clean
exit stops all of them in reverse order. After a crash (or a kill -9) the next start on the same folder stops exactly those
that are still the same process: a pid alone may belong to a stranger by then.

A parent-death signal is deliberately not used: the kernel ties it to the *thread* that forked, so a server started from
a worker thread would die when that thread ends.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

Say = Callable[[str], None]

_CHILDREN_FILE = "children.jsonl"
_LOCK_FILE = "supervisor.lock"
# The kernel counts start times in ticks since boot; the boot time they are added to moves when the clock is corrected.
_START_TIME_TOLERANCE_S = 1.0
_KILL_WAIT_S = 5.0
_POLL_S = 0.01


class RunFolderInUse(RuntimeError):
    """Another live supervisor holds the run folder."""


def silent(_line: str) -> None:
    """A `say` that prints nothing."""


@dataclass(frozen=True, slots=True)
class Child:
    """One process of a run: what identifies it, and how it wants to be stopped.

    `start_time` is in seconds since 1970. Children that follow each other and share a `name` are stopped together.
    """

    pid: int
    start_time: float
    name: str
    stop_signal: int = signal.SIGTERM

    def process(self) -> psutil.Process | None:
        """The live process, or None when it has ended or its pid now belongs to another one."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.start_time) <= _START_TIME_TOLERANCE_S
        except psutil.NoSuchProcess:
            return None
        return process if same and _runs(process) else None


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder outside the run folder that is removed with the run; the inode tells it from a namesake."""

    path: str
    device: int
    inode: int

    def remove(self) -> None:
        """Deletes the folder, unless something else now stands at its path."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if (found.st_dev, found.st_ino) == (self.device, self.inode):
            shutil.rmtree(self.path, ignore_errors=True)


class Supervisor:
    """Owner of a run folder and of every process started under it. Use it as a context manager.

    Entering takes the folder (`RunFolderInUse` if another supervisor lives in it) and reaps what a crashed run left.
    `grace_s` is how long a child may take to stop before it is killed.
    """

    def __init__(self, run_dir: Path, say: Say = silent, grace_s: float = 10.0) -> None:
        self.run_dir = run_dir.resolve()  # children run in folders of their own
        self.say = say
        self.grace_s = grace_s
        self._lock_fd: int | None = None
        self._children: list[Child] = []
        self._folders: list[Folder] = []
        self._before_stop: list[Callable[[], None]] = []
        self._opened: dict[int, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self._lock_fd = _lock(self.run_dir)
        if self._lock_fd is None:
            raise RunFolderInUse(
                f"run folder {self.run_dir} is in use by another run: stop that run or choose another folder"
            )
        stopped = _reap_locked(self.run_dir, self.grace_s)
        if stopped:
            self.say(f"stopped {len(stopped)} processes that an earlier run left behind")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop_all()
        finally:
            if self._lock_fd is not None:
                os.close(self._lock_fd)
                self._lock_fd = None

    @property
    def children(self) -> tuple[Child, ...]:
        """All children recorded so far, oldest first, including those that have ended."""
        return tuple(self._children)

    def start(
        self,
        name: str,
        command: list[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: int | None = None,
        group: int | None = None,
        stop_signal: int = signal.SIGTERM,
    ) -> subprocess.Popen[bytes]:
        """Starts `command` with its output appended to `log_path`, and records it before returning.

        The child leads a session of its own, so that Ctrl-C reaches the driver alone, which then stops things in order.
        `user` and `group` are numeric ids and need root. Raises `OSError` when the command cannot be run.
        """
        self._require_entered()
        self._collect()
        with log_path.open("ab") as log:
            opened = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                start_new_session=True,
            )
        self._opened[opened.pid] = opened
        try:
            self.record(opened.pid, name, stop_signal)
        except BaseException:
            opened.kill()
            opened.wait()
            raise
        return opened

    def record(self, pid: int, name: str, stop_signal: int = signal.SIGTERM) -> None:
        """Takes charge of a process that something else started. A pid that has already ended is ignored."""
        self._require_entered()
        try:
            child = Child(pid, psutil.Process(pid).create_time(), name, int(stop_signal))
        except psutil.NoSuchProcess:
            return
        if child not in self._children:
            self._append({"child": asdict(child)})
            self._children.append(child)

    def record_descendants(self, name: str) -> int:
        """Takes charge of all descendants of the children recorded under `name`, in the same way; returns how many.

        Call it again after more have started. Needed for what Ray starts: its agents and Serve's haproxy outlive a killed
        driver and a killed raylet, and by then nothing tells whose children they were.
        """
        found = {
            descendant.pid: child.stop_signal
            for child in self._children
            if child.name == name and (process := child.process()) is not None
            for descendant in _descendants(process)
        }
        for pid, stop_signal in sorted(found.items()):
            self.record(pid, name, stop_signal)
        return len(found)

    def own_folder(self, path: Path) -> None:
        """Removes `path`, a folder outside the run folder, when the run ends or is reaped."""
        self._require_entered()
        found = os.lstat(path)
        folder = Folder(str(path), found.st_dev, found.st_ino)
        self._append({"folder": asdict(folder)})
        self._folders.append(folder)

    def before_stop(self, action: Callable[[], None]) -> None:
        """Calls `action` at the start of `stop_all`, newest first, while every child still runs."""
        self._before_stop.append(action)

    def stop(self, pid: int) -> None:
        """Stops one recorded child and its descendants. Raises `KeyError` for a pid that was never recorded."""
        mine = [child for child in self._children if child.pid == pid]
        if not mine:
            raise KeyError(f"pid {pid} was not started under {self.run_dir}")
        _stop_children(mine, self.grace_s)
        self._collect()

    def stop_named(self, name: str) -> None:
        """Stops all children recorded under `name`, together."""
        _stop_children([child for child in self._children if child.name == name], self.grace_s)
        self._collect()

    def stop_all(self) -> None:
        """Stops every recorded child in reverse order, removes owned folders and empties the record.

        An error of a `before_stop` action is raised after all of that has been done.
        """
        with ExitStack() as last:
            last.callback(self._stop_recorded)
            for action in self._before_stop:
                last.callback(action)
            self._before_stop.clear()

    def _stop_recorded(self) -> None:
        _stop_children(self._children, self.grace_s)
        self._collect()
        for folder in self._folders:
            folder.remove()
        self._children.clear()
        self._folders.clear()
        (self.run_dir / _CHILDREN_FILE).unlink(missing_ok=True)

    def _require_entered(self) -> None:
        if self._lock_fd is None:
            raise RuntimeError(f"supervisor of {self.run_dir} is not entered: use it in a with statement")

    def _append(self, line: Mapping[str, object]) -> None:
        # One write call: a crash leaves whole lines or one torn last line, which reading skips.
        descriptor = os.open(self.run_dir / _CHILDREN_FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, json.dumps(line).encode() + b"\n")
        finally:
            os.close(descriptor)

    def _collect(self) -> None:
        """Asks for the exit status of ended children: as zombies they would look alive to a server's own pid file."""
        for pid in [pid for pid, opened in self._opened.items() if opened.poll() is not None]:
            del self._opened[pid]


def reap(run_dir: Path, say: Say = silent, grace_s: float = 10.0) -> list[int]:
    """Stops what a crashed run left under `run_dir`; returns the pids. Leaves a folder alone that a live run holds."""
    if not run_dir.is_dir():
        return []
    lock_fd = _lock(run_dir)
    if lock_fd is None:
        return []
    try:
        stopped = _reap_locked(run_dir, grace_s)
    finally:
        os.close(lock_fd)
    if stopped:
        say(f"stopped {len(stopped)} processes that an earlier run left behind")
    return stopped


def reap_abandoned(runs_dir: Path, say: Say = silent, grace_s: float = 10.0) -> list[int]:
    """Reaps and deletes every run folder below `runs_dir` that no live supervisor holds; returns the pids stopped."""
    stopped: list[int] = []
    for run_dir in sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []:
        # Without a lock file nothing was ever started there; a run may just be making the folder.
        lock_fd = _lock(run_dir) if (run_dir / _LOCK_FILE).exists() else None
        if lock_fd is None:
            continue
        try:
            stopped += _reap_locked(run_dir, grace_s)
            shutil.rmtree(run_dir, ignore_errors=True)
        finally:
            os.close(lock_fd)
    if stopped:
        say(f"stopped {len(stopped)} processes that earlier runs left behind")
    return stopped


def _lock(run_dir: Path) -> int | None:
    """An exclusive lock on the folder, released by the kernel with this process; None when another holds it."""
    while True:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(run_dir / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # another run has just cleared this folder away
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink > 0:
            return descriptor
        os.close(descriptor)  # deleted between opening and locking: this lock guards nothing


def _reap_locked(run_dir: Path, grace_s: float) -> list[int]:
    record = run_dir / _CHILDREN_FILE
    children, folders = _read(record)
    alive = [child for child in children if child.process() is not None]
    _stop_children(alive, grace_s)
    for folder in folders:
        folder.remove()
    record.unlink(missing_ok=True)
    return [child.pid for child in alive]


def _read(record: Path) -> tuple[list[Child], list[Folder]]:
    children: list[Child] = []
    folders: list[Folder] = []
    for line in record.read_text().splitlines() if record.exists() else []:
        try:
            entry = json.loads(line)
            if "child" in entry:
                children.append(Child(**entry["child"]))
            else:
                folders.append(Folder(**entry["folder"]))
        except (ValueError, KeyError, TypeError):
            continue  # torn by a crash in the middle of a write
    return children, folders


def _stop_children(children: Iterable[Child], grace_s: float) -> None:
    """Asks each group of children to stop, newest group first, then kills what is left of them and their descendants."""
    groups: list[list[Child]] = []
    for child in reversed(list(children)):
        if groups and groups[-1][0].name == child.name:
            groups[-1].append(child)
        else:
            groups.append([child])
    for group in groups:
        _stop_group(group, grace_s)


def _stop_group(group: list[Child], grace_s: float) -> None:
    asked = [(child, process) for child in group if (process := child.process()) is not None]
    everyone = {process.pid: process for _, process in asked}
    for _, process in asked:
        everyone.update((descendant.pid, descendant) for descendant in _descendants(process))
    for child, process in asked:
        _send(process, child.stop_signal)
    # Descendants are not asked: a server stops its own workers in the right order.
    _wait_until_ended([process for _, process in asked], grace_s)
    left = [process for process in everyone.values() if _runs(process)]
    for process in left:
        _send(process, signal.SIGKILL)
    _wait_until_ended(left, _KILL_WAIT_S)


def _wait_until_ended(processes: list[psutil.Process], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while any(_runs(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _runs(process: psutil.Process) -> bool:
    """Whether it is the same process still, and more than a zombie that only waits for its parent to notice.

    While a JVM exits, its first thread is a zombie already and the others still hold its ports and files.
    """
    try:
        ended = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
        return not ended and bool(process.is_running())
    except psutil.NoSuchProcess:
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _send(process: psutil.Process, signal_number: int) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(signal_number)  # psutil compares the start time once more before it signals
