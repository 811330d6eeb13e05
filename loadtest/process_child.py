"""A shard or a controller as a plain process: its settings come as a line of JSON on stdin, and its end with the EOF."""

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from actors.assembly import ControllerProcess, ShardProcess
from config.settings import Settings

LEFT_BY_ITSELF = 3  # the exit status of a shard that was declared dead


async def main(given: dict[str, Any]) -> int:
    settings = Settings.model_validate(given["settings"])
    closed = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    if given["role"] == "controller":
        controller = ControllerProcess(given["name"], settings)
        await controller.start()
        await closed
        await controller.stop()
        return 0
    shard = ShardProcess(given["name"], settings, Path(given["lock_dir"]))
    await shard.start()
    sys.stdout.write(shard.incarnation.name + "\n")
    sys.stdout.flush()
    loop = asyncio.create_task(shard.wait())
    await asyncio.wait({closed, loop}, return_when=asyncio.FIRST_COMPLETED)
    if loop.done():
        # The thread that waits for stdin would keep an ordinary exit waiting too.
        os._exit(LEFT_BY_ITSELF)
    await shard.stop()
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    sys.exit(asyncio.run(main(json.loads(sys.stdin.readline()))))
