"""`tallygate shards`: who lives, and who is emptied."""

import asyncio

import orjson
import pytest

from actors.cli.terminal import WRONG_INPUT
from actors.membership import PostgresMembership
from tests.actors.cli.calling import call


def test_shards_are_listed_drained_and_resumed_in_a_real_database(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    call("migrate")

    async def join() -> None:
        membership = PostgresMembership(database, lease_s=600.0)
        await membership.start()
        for number in range(2):
            await membership.register(f"shard-{number}.x", f"shard-{number}", f"host-{number}", "/run/lock", 1)
        await membership.stop()

    asyncio.run(join())

    def states() -> dict[str, str]:
        return {row["shard"]: row["state"] for row in orjson.loads(call("shards", "list", "--json").stdout)}

    assert call("shards", "drain").exit_code == WRONG_INPUT
    unknown = call("shards", "drain", "shard-7")
    assert (unknown.exit_code, "tallygate shards list" in unknown.stderr) == (WRONG_INPUT, True)
    drained = call("shards", "drain", "--host", "host-0")
    assert (drained.exit_code, "shard-0.x owns nothing any more" in drained.stdout) == (0, True)
    assert states() == {"shard-0": "drained", "shard-1": "spare"}
    last = call("shards", "drain", "shard-1")
    assert (last.exit_code, "start another one first" in last.stderr) == (WRONG_INPUT, True)
    assert "shard-0" in call("shards", "list").stdout
    assert call("shards", "resume", "shard-0").exit_code == 0
    assert states() == {"shard-0": "spare", "shard-1": "spare"}
