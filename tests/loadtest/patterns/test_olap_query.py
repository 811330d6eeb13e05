"""Pattern (a): what was inserted is seen at once, and read again counts once."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("chdb", reason="of the dependency group `bench`")

# One session per process, and it outlives its closing: so each test has a process of its own.
SCRIPT = """
import asyncio, sys
from pathlib import Path
from loadtest.patterns.olap_query import OlapQuery
from loadtest.patterns.pattern import Terms, Use

async def main(folder):
    pattern = OlapQuery(folder, Terms(cap_pico=100, alert_pico=30))
    places = await pattern.start()
    uses = [Use("it's", "s", str(number), 10) for number in range(4)]
    if not places:
        assert await pattern.spent("it's") == 0
        await pattern.take(uses, {0: 4, 1: 2})
        assert await pattern.tick() == ["it's"]
    await pattern.take(uses[:2], {0: 4})
    assert await pattern.spent("it's") == 40, await pattern.spent("it's")
    assert await pattern.spent("nobody") == 0
    await pattern.take([], {1: 3})
    print(places)
    await pattern.stop()

asyncio.run(main(Path(sys.argv[1])))
"""


def run(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_it_counts_each_event_once_also_in_its_next_life(tmp_path: Path) -> None:
    assert run(tmp_path / "olap") == "{}"
    assert run(tmp_path / "olap") == "{0: 4, 1: 3}"
