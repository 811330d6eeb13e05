"""`build/chaos.json`: what was done to a deployment, what became of it, and what may not have been.

Every phase of a run (kills, pauses, cuts, a full disk) writes into the same report: the faults as they strike, its own
figures, and a sentence for whatever is wrong.
"""

import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import orjson
from msgspec import Struct

from config.stack.supervisor import Say
from loadtest.report import percentiles

_ROOT = Path(__file__).resolve().parents[2]


class Takeover(Struct):
    """How long after each fault of a kind somebody spoke for every partition again."""

    seconds: list[float]
    p50: float | None
    p99: float | None


class Report(Struct):
    """Counts are of all phases that have reported; a run without sentences in `wrong` has held."""

    command: str
    faults: dict[str, int] = {}  # by kind
    events: int = 0  # usage events that Kafka has acknowledged
    lost: int = 0
    double: int = 0
    oracle_equal: bool | None = None  # None: nobody has compared
    overspend: int = 0  # pico, of customers whose whole usage was held
    takeover: dict[str, Takeover] = {}  # by kind
    phases: dict[str, Mapping[str, Any]] = {}  # figures of each phase, as it names them
    wrong: list[str] = []
    seconds: float = 0.0
    machine: str = ""
    commit: str = ""
    written: str = ""

    def struck(self, kind: str, takeover_s: float | None = None) -> None:
        """One more fault; `takeover_s` where the fault could silence a partition."""
        self.faults[kind] = self.faults.get(kind, 0) + 1
        if takeover_s is not None:
            known = self.takeover[kind].seconds if kind in self.takeover else []
            seconds = [*known, round(takeover_s, 3)]
            self.takeover[kind] = Takeover(seconds, **percentiles(seconds))

    def add(self, phase: str, figures: Mapping[str, Any], wrong: Iterable[str]) -> None:
        """What a phase has come to; `wrong` are sentences."""
        self.phases[phase] = figures
        self.wrong += [f"{phase}: {sentence}" for sentence in wrong]

    def leave_out(self, phase: str, reason: str, say: Say) -> None:
        """The phase is not run, and proves nothing."""
        say(f"{phase}: SKIPPED, {reason}")
        self.phases[phase] = {"skipped": reason}

    @property
    def left_out(self) -> list[str]:
        return [phase for phase, figures in self.phases.items() if "skipped" in figures]

    @property
    def holds(self) -> bool:
        """Whether the run proved what it set out to prove."""
        return self.oracle_equal is True and not (self.wrong or self.lost or self.double or self.overspend)

    def write(self, path: Path) -> None:
        """With the facts of the machine, the commit and the time."""
        self.machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        self.commit = _commit()
        self.written = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        path.parent.mkdir(parents=True, exist_ok=True)
        options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        path.write_bytes(orjson.dumps(msgspec.to_builtins(self), option=options))


def _commit() -> str:
    """The checkout's commit; with a mark where files differ from it, empty where there is no checkout."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout.strip()
