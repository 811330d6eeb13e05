import asyncio
import re
from typing import Any

import pytest

from actors.keys import KeyScope
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage


async def test_anybody_may_ask_whether_it_lives_and_is_ready(stage: Stage) -> None:
    stranger = Client(stage.app)
    assert (await stranger.get("/livez")).json() == {"live": True}
    answer = await stranger.get("/readyz")
    assert (answer.status, answer.json()) == (200, {"ready": True})


async def test_a_partition_that_is_not_ready_makes_nobody_ready(stage: Stage) -> None:
    stage.doors.stages[2] = "replaying"
    answer = await Client(stage.app).get("/readyz")
    assert (answer.status, answer.json()) == (503, {"ready": False})


async def test_a_partition_that_nobody_owns_makes_nobody_ready(stage: Stage) -> None:
    stage.doors.stages.pop()
    assert (await Client(stage.app).get("/readyz")).status == 503


async def test_keys_that_cannot_be_followed_make_nobody_ready(stage: Stage) -> None:
    stage.keys.fresh = False
    assert (await Client(stage.app).get("/readyz")).status == 503


async def test_the_shards_are_not_asked_again_for_half_a_second(stage: Stage) -> None:
    stranger = Client(stage.app)
    assert (await stranger.get("/readyz")).status == 200
    stage.doors.stages[0] = "halted"
    assert (await stranger.get("/readyz")).status == 200
    stage.clock.now_s += 0.5
    assert (await stranger.get("/readyz")).status == 503


async def test_metrics_tell_of_the_replica_and_of_every_shard(stage: Stage, client: Client) -> None:
    await client.get("/v1/routes")
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    text = answer.body.decode()
    for series in (
        'tallygate_http_requests_total{replica="replica-1",route="GET /v1/routes",status="200"} 1.0',
        "tallygate_shards_answering 1.0",
        'tallygate_checks_total{decision="allowed",shard="shard-0"} 3.0',
        'tallygate_events_consumed_total{outcome="rated",partition="1",shard="shard-0"} 42.0',
        'tallygate_shard_owned{partition="3",shard="shard-0",stage="ready"} 1.0',
        'tallygate_lease_remaining_seconds{shard="shard-0"} 0.9',
        'tallygate_holds_open{partition="0",shard="shard-0"} 2.0',
        'tallygate_leases_open{partition="0",shard="shard-0"} 1.0',
        'tallygate_leased_amount{currency="USD",partition="0",shard="shard-0"} 2.5',
        'tallygate_unheld_bound_amount{currency="USD",partition="0",shard="shard-0"} 3.0',
        'tallygate_unheld_bound_amount{currency="EUR",partition="0",shard="shard-0"} 0.5',
    ):
        assert series in text
    assert set(re.findall(r"^(?!#)(\w+?)_", text, re.MULTILINE)) == {"tallygate"}
    assert "account=" not in text and "acme" not in text


async def test_metrics_and_routes_are_not_for_strangers(stage: Stage) -> None:
    assert (await Client(stage.app).get("/metrics")).status == 401
    assert (await Client(stage.app, stage.keys.add(KeyScope.INGEST)).get("/metrics")).status == 403
    assert (await Client(stage.app, stage.keys.add(KeyScope.READ)).get("/v1/routes")).status == 403


@pytest.mark.parametrize("partition", [0, 3])
async def test_the_routing_table_names_a_door_for_each_partition(client: Client, partition: int) -> None:
    told = (await client.get("/v1/routes")).json()
    assert told["partitions"] == 4
    assert told["routes"][partition] == {"partition": partition, "host": "10.0.0.7", "port": 7411, "epoch": 7}


async def test_whoever_asks_while_somebody_looks_has_the_last_answer(
    stage: Stage, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await client.get("/readyz")).status == 200
    gate, asked = asyncio.Event(), stage.doors.ask_every_shard

    async def ask_when_told(*question: Any) -> Any:
        await gate.wait()
        return await asked(*question)

    monkeypatch.setattr(stage.doors, "ask_every_shard", ask_when_told)
    stage.clock.now_s += 0.5
    looks = asyncio.ensure_future(client.get("/readyz"))
    await asyncio.sleep(0)
    assert (await asyncio.wait_for(client.get("/readyz"), 5)).status == 200
    gate.set()
    assert (await looks).status == 200
