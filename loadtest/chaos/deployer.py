"""The driver of a deployment, in a process of its own that may be killed: it starts what is missing, and waits.

Its one argument is a file with the address of a Ray, the settings with their secrets, and the folder of the lock files.
Told to end (SIGTERM), it stops the API and lets the shards hand over. Killed, it leaves everything running, and the next
one finds it.
"""

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any, Final

from actors.deployment import deployed
from config.settings import Settings
from config.stack.ray_local import join_ray

READY: Final = "deployed"  # the line it writes once every partition is spoken for and the API answers


def say(line: str) -> None:
    """A line of the log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def deploy(settings: Settings, lock_dir: Path) -> None:
    """Until SIGTERM."""
    stopping = asyncio.Event()
    async with deployed(settings, lock_dir, say):
        # Set now: Ray and Serve set their own while they start.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
        say(READY)
        await stopping.wait()


def main(path: Path) -> None:
    given: dict[str, Any] = json.loads(path.read_text())
    join_ray(given["address"])
    asyncio.run(deploy(Settings.model_validate(given["settings"]), Path(given["lock_dir"])))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
