"""Pattern (c): callers cannot overspend together, and the ledger has each use once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.deployment import until
from config.stack.supervisor import Supervisor
from loadtest.patterns.pattern import Terms, Use
from loadtest.patterns.redis_counter import BEHIND, RedisCounter, RedisServer, find_server

pytest.importorskip("redis", reason="of the dependency group `bench`")
if find_server() is None:
    pytest.skip("no redis-server, and no wheel with one", allow_module_level=True)


@pytest.fixture
async def counter(supervisor: Supervisor, database: str, tmp_path: Path) -> AsyncIterator[RedisCounter]:
    server = RedisServer(supervisor, find_server() or "", tmp_path / "redis", "append only")
    server.start()
    found = RedisCounter(server.port, database, Terms(cap_pico=100, alert_pico=30))

    async def up() -> bool:
        try:
            await found.start()
        except Exception:
            return False
        return True

    await until(up, "redis to answer", 10.0)
    yield found
    await found.stop()
    server.kill()


async def test_callers_at_once_are_allowed_no_more_than_fits(counter: RedisCounter) -> None:
    answers = await asyncio.gather(*(counter.check("a", 10) for _ in range(30)))
    assert sum(answers) == 10
    assert not await counter.settle(Use("a", "s", "1", 4), reserved=10)
    assert not await counter.check("a", 7), "four are spent and ninety held"
    assert await counter.check("a", 6)


async def test_the_threshold_is_crossed_once(counter: RedisCounter) -> None:
    crossed = [await counter.settle(Use("b", "s", str(number), 10), 0) for number in range(5)]
    assert crossed == [False, False, True, False, False]
    assert await counter.spent("b") == 50


async def test_the_ledger_has_each_use_once(counter: RedisCounter) -> None:
    uses = [Use("c", "s", str(number), 10) for number in range(3)]
    await counter.settle_many(uses)
    await counter.settle_many(uses[:1])  # a consumer that reads again: the counter has it twice, the ledger once
    while await counter.write_behind():
        pass
    assert await counter.written("c") == 30
    assert await counter.spent("c") == 40
    assert await counter._client.llen(BEHIND) == 0
