"""What a figure was measured on, and with what: facts that stand in every report of a bench."""

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


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.strip()
