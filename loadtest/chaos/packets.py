"""Packets dropped between one shard and its servers, by nftables, in a network namespace that ends with this process.

Unlike a proxy's, a connection so cut loses nothing for good: the kernel sends again what was not acknowledged, so a COMMIT
may arrive seconds late, on a session that both ends still believe in. Needs root. In the namespace there is a loopback
interface and nothing else; all servers and shards of the run live in it.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from actors.assembly import database_dsn
from actors.clock import SystemClock
from actors.deployment import until
from config.settings import Settings
from config.stack.kafka import Listener, start_kafka
from config.stack.ports import free_ports
from config.stack.postgres import start_postgres
from config.stack.supervisor import Supervisor, silent
from loadtest.chaos.cuts import WAYS, Server
from loadtest.chaos.judgement import Judged
from loadtest.chaos.links import WAIT_S, Shards, audited_deployment, reaching
from loadtest.chaos.proxy import Direction

SHARD_ADDRESS: Final = "127.0.0.2"  # that the servers have for one shard alone: its packets are told by it
_TABLE: Final = "inet tallygate"
_MATCH: Final = {
    Direction.UP: f"ip daddr {SHARD_ADDRESS} tcp dport",
    Direction.DOWN: f"ip saddr {SHARD_ADDRESS} tcp sport",
}


class PacketsFailed(Exception):
    """The run in the namespace broke off; the message says where its logs are."""


class PacketCuts(Struct, frozen=True):
    """What came of a run."""

    cuts: dict[str, int]  # by server and way: packets dropped
    events: int
    declared_dead: int
    judged: Judged


class _Address(Struct, frozen=True):
    """A way to the servers by an address of their own."""

    host: str
    kafka_port: int

    def through(self, settings: Settings) -> Settings:
        parts = urlsplit(database_dsn(settings))
        credentials = parts.netloc.rpartition("@")[0]
        dsn = parts._replace(netloc=f"{credentials}@{self.host}:{parts.port}").geturl()
        return reaching(settings, dsn, f"{self.host}:{self.kafka_port}")


def why_not() -> str | None:
    """Why no packets can be dropped here; None where they can."""
    if os.geteuid() != 0:
        return "only root may make a network namespace"
    missing = [name for name in ("unshare", "ip", "nft") if shutil.which(name) is None]
    if missing:
        return f"there is no {missing[0]} command (util-linux, iproute2, nftables)"
    tried = subprocess.run(["unshare", "--net", "nft", "list", "ruleset"], capture_output=True, text=True, check=False)
    return None if tried.returncode == 0 else f"no namespace with nftables can be made: {tried.stderr.strip()}"


async def cut_packets(folder: Path, seconds: float, ways: list[str]) -> PacketCuts:
    """A run in a namespace of its own: every server is cut off each of these ways, for so long each."""
    command = ["unshare", "--net", sys.executable, "-m", "loadtest.chaos.packets", str(folder), str(seconds), *ways]
    running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await running.communicate()
    if running.returncode != 0:
        raise PacketsFailed(f"the run in a namespace of its own ended with {running.returncode}; see {folder}")
    return msgspec.json.decode(said.splitlines()[-1], type=PacketCuts)


async def _run(folder: Path, seconds: float, ways: list[str]) -> PacketCuts:
    with Supervisor(folder, say=silent) as supervisor:
        port, kafka_port = free_ports(2)
        listener = Listener("FIRST", kafka_port, kafka_port, SHARD_ADDRESS)
        postgres = start_postgres(supervisor, port=port, hosts=("127.0.0.1", SHARD_ADDRESS))
        kafka = start_kafka(supervisor, listeners=[listener])
        async with audited_deployment(postgres.superuser_dsn, kafka.bootstrap_servers) as (at, audit):
            own_way = _Address(SHARD_ADDRESS, kafka_port)
            run = Shards(at, audit, [own_way, _Address("127.0.0.1", kafka.ports[0])], folder)
            try:
                await run.start()
                dropped: Counter[str] = Counter()
                async with run.load():
                    for name in ways:
                        for server, far_port in ((Server.POSTGRES, port), (Server.KAFKA, kafka_port)):
                            dropped[f"{server}.{name}"] += await _cut(run, far_port, WAYS[name], seconds)
                await run.end()
                judged = await run.judged(len(dropped))
            finally:
                run.close()
    return PacketCuts(dict(dropped), run.acknowledged.events, run.left, judged)


async def _cut(run: Shards, port: int, ways: frozenset[Direction], seconds: float) -> int:
    """Drop packets between the first shard and that port; how many. Returns when all partitions have checkpoints again."""

    async def owning() -> bool:
        return bool(await run.partitions_of(0))

    await until(owning, "the shard to own partitions", WAIT_S)  # a spare says little that could be dropped
    rules = "\n".join(f"{_MATCH[way]} {port} counter drop" for way in sorted(ways))
    chain = f"chain arriving {{ type filter hook input priority 0; policy accept;\n{rules}\n}}"
    await _nft("--file", "-", script=f"table {_TABLE} {{\n{chain}\n}}")
    try:
        await SystemClock().sleep(seconds)
        counted = json.loads(await _nft("--json", "list", "table", *_TABLE.split()))["nftables"]
    finally:
        await _nft("delete", "table", *_TABLE.split())
    await run.healed()
    counters = [
        part["counter"] for each in counted for part in each.get("rule", {}).get("expr", []) if "counter" in part
    ]
    return sum(int(counter["packets"]) for counter in counters)


async def _nft(*arguments: str, script: str = "") -> bytes:
    running = await asyncio.create_subprocess_exec(
        "nft", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await running.communicate(script.encode())
    if running.returncode != 0:
        raise PacketsFailed(f"nft refuses {arguments} {script}")
    return said


def main(folder: str, seconds: str, *ways: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    made = asyncio.run(_run(Path(folder), float(seconds), list(ways)))
    sys.stdout.write(msgspec.json.encode(made).decode() + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
