"""What a figure was measured on, and with what: facts that stand in every report of a bench; what this process takes."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).resolve().parents[1]


def machine() -> dict[str, Any]:
    """Processor, cores, memory (MiB), Python, the load before (1, 5 and 15 minutes), the command line and the commit."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": commit(),
    }


def commit() -> str | None:
    """Of this tree, with a + when something in it differs; None where there is no Git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def resident() -> dict[str, int]:
    """Bytes of this process in memory, by kind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss")}
    return {"anonymous": found["RssAnon"], "file_backed": found["RssFile"]}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()
