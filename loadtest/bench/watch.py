"""What each part of the deployment takes of the machine while a run goes on: processor time and memory, by role."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import psutil
from msgspec import Struct

from actors.ports import Clock

FAMILIES_EVERY_S: Final = 10.0

Roles = Callable[[], Mapping[str, list[int]]]  # role -> pids, whose descendants count with them


class Taken(Struct, frozen=True):
    """What one role has taken: processor seconds since its processes began, and MiB now."""

    cpu_s: float
    rss_mib: float


class Look(Struct, frozen=True):
    """One look at everybody."""

    at_s: float  # boot clock
    taken: Mapping[str, Taken]
    rated: int = 0
    lag: int = 0  # records in the log that the fold has not reached


def families(roles: Mapping[str, list[int]]) -> dict[str, list[psutil.Process]]:
    """The processes of each role: one counts for the first that names it or an ancestor of it.

    It reads all of the machine's, which takes as long as dozens of checks."""
    children: dict[int, list[psutil.Process]] = {}
    everybody: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["ppid"]):
        everybody[process.pid] = process
        children.setdefault(process.info["ppid"], []).append(process)
    seen: set[int] = set()
    found: dict[str, list[psutil.Process]] = {}
    for role, pids in roles.items():
        found[role] = []
        waiting = [everybody[pid] for pid in pids if pid in everybody]
        while waiting:
            process = waiting.pop()
            if process.pid not in seen:
                seen.add(process.pid)
                found[role].append(process)
                waiting += children.get(process.pid, ())
    return found


def taken_by(processes: Mapping[str, list[psutil.Process]]) -> dict[str, Taken]:
    """Of those that are still there."""
    found = {}
    for role, family in processes.items():
        cpu_s = rss = 0.0
        for process in family:
            try:
                times, memory = process.cpu_times(), process.memory_info()
            except psutil.Error:
                continue  # it has ended
            cpu_s += times.user + times.system
            rss += memory.rss
        found[role] = Taken(round(cpu_s, 3), round(rss / 2**20, 1))
    return found


def cores_between(first: Look, last: Look) -> dict[str, float]:
    """Cores that each role kept busy, on the mean, between two looks."""
    seconds = last.at_s - first.at_s
    if seconds <= 0:
        raise ValueError("the second look must come after the first")
    return {
        role: round(max(0.0, taken.cpu_s - first.taken[role].cpu_s) / seconds, 3)
        for role, taken in last.taken.items()
        if role in first.taken
    }


class Watch:
    """Looks again and again; `looks` grows."""

    def __init__(self, clock: Clock, roles: Roles) -> None:
        self.looks: list[Look] = []
        self._clock = clock
        self._roles = roles
        self._families: dict[str, list[psutil.Process]] = {}
        self._found_s = float("-inf")

    def look(self, rated: int = 0, lag: int = 0) -> Look:
        """Look once, and keep it. Whose process is whose is found out now and then."""
        now_s = self._clock.boot_s()
        if now_s >= self._found_s + FAMILIES_EVERY_S:
            self._families, self._found_s = families(self._roles()), now_s
        seen = Look(now_s, taken_by(self._families), rated, lag)
        self.looks.append(seen)
        return seen

    def series(self, origin_s: float) -> list[dict[str, Any]]:
        """For a plot: seconds since `origin_s`, rated, lag, memory by role."""
        return [
            {
                "at_s": round(seen.at_s - origin_s, 2),
                "rated": seen.rated,
                "lag": seen.lag,
                "rss_mib": {role: taken.rss_mib for role, taken in seen.taken.items()},
            }
            for seen in self.looks
        ]
