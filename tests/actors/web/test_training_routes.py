"""Training runs over HTTP, on a real database: declared, moved on by their logs, and judged."""

from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from actors.keys import KeyScope
from actors.margin_store import MarginStore
from actors.ports import Fenced
from engine.cost.attribution import Attribution, Horizons
from engine.cost.gpu_rates import GpuRate, RateDocument
from engine.events import seal
from tests.actors.web.asgi_client import Response
from tests.actors.web.house import KEY, House

LOG = (Path(__file__).parents[2] / "pages" / "speed_monitor.txt").read_text().splitlines()
RUNS = "/v1/training-runs"
BODY = {"gpu": "h100-sxm", "gpus": 64, "started": "2026-11-20T10:00:00Z", "budget": "18000", "level": "critical"}


async def put(house: House, name: str = "pretrain", **changes: Any) -> Response:
    body = {key: value for key, value in (BODY | changes).items() if value is not None}
    headers = {"content-type": "application/json"}
    return await house.client.send("PUT", f"{RUNS}/{name}", orjson.dumps(body), headers=headers)


async def send(house: House, lines: list[str], name: str = "pretrain") -> Response:
    return await house.client.post(f"{RUNS}/{name}/log", {"lines": lines})


def with_rates(house: House, version: int = 1, amount: str = "2.10") -> None:
    """A cost actor has a checkpoint that knows them."""
    fold = Attribution(0, KEY, Horizons())
    document = RateDocument(version, "USD", (GpuRate("h100-sxm", 0, amount),))
    fold.apply(seal(KEY, "served", 0, msgspec.json.encode(document)), b"rates", 1)
    house.gpu_rates[version % 2] = fold.blob()


async def test_a_run_is_declared_moved_on_and_removed(house: House) -> None:
    assert (await put(house)).status == 204
    (item,) = (await house.client.get(RUNS)).json()["items"]
    assert (item["spent"], item["projected"], item["currency"]) == (None, None, None), "no rates are known"
    with_rates(house, 1, "9")
    with_rates(house, 2)
    answer = (await send(house, LOG)).json()
    assert (answer["read"], answer["faults"]) == (19, [])
    run = answer["run"]
    assert (run["batch"], run["gpu_hours"], run["remaining_s"]) == (5_000, "3072.000", "345600.000")
    assert (run["spent"], run["projected"], run["budget"]) == ("6451.200000000000", "19353.600000000000", "18000")
    assert (run["mfu_percent"], run["told_mfu_percent"], run["mfu_agrees"]) == ("41.20", "41.20", True)
    assert (await send(house, LOG)).json()["run"] == run
    assert (await house.client.get(RUNS)).json()["items"] == [run]
    assert (await send(house, ["time/total: -1"])).json()["faults"]
    assert (await send(house, LOG, "other")).status == 404
    assert (await house.client.send("DELETE", f"{RUNS}/pretrain")).status == 204
    assert (await house.client.send("DELETE", f"{RUNS}/pretrain")).status == 404
    assert (await house.client.get(RUNS)).json()["items"] == []


async def test_a_projection_beyond_the_budget_is_told_the_seller_once(house: House) -> None:
    with_rates(house)
    margins = MarginStore(house.bench.dsn, house.bench.schema, 1.2, 5.0)
    await house.bench.started(margins)
    epoch = (await margins.claim(0, "a")).epoch
    await put(house)
    assert await house.training.judge(epoch) == []
    await send(house, LOG)
    (alert,) = await house.training.judge(epoch)
    assert msgspec.json.decode(alert.body)["type"] == "training.crossed"
    assert await house.training.judge(epoch) == [], "it is told once"
    await put(house, budget="20000")
    with pytest.raises(Fenced):
        await house.training.judge(epoch - 1)
    (again,) = await house.training.judge(epoch)
    assert (msgspec.json.decode(again.body)["type"], again.offset) == ("training.recovered", alert.offset + 1)
    # Removed and declared again it counts on: no id comes twice.
    await house.client.send("DELETE", f"{RUNS}/pretrain")
    await put(house)
    await send(house, LOG)
    (third,) = await house.training.judge(epoch)
    assert msgspec.json.decode(third.body)["data"]["ordinal"] == 2


async def test_what_makes_no_sense_is_refused_by_its_field(house: House) -> None:
    for changes, field in (
        ({"budget": "-1"}, "budget"),
        ({"budget": "1e3"}, "budget"),
        ({"started": "May"}, "started"),
    ):
        answer = await put(house, **changes)
        assert (answer.status, answer.json()["field"]) == (400, field), changes
    nonsense: list[tuple[str, Any]] = [("gpus", 0), ("unit", "fortnights"), ("peak_flops", 0)]
    for field, value in nonsense:
        assert (await put(house, **{field: value})).status == 400, field


async def test_runs_are_the_seller_s_and_an_ingest_key_may_only_send_logs(house: House) -> None:
    await put(house)
    assert (await house.caller(*KeyScope, account="acme").get(RUNS)).status == 403
    ingest = house.caller(KeyScope.INGEST)
    assert (await ingest.get(RUNS)).status == 403
    sent = await ingest.post(f"{RUNS}/pretrain/log", {"lines": LOG})
    assert (sent.status, sent.json()["run"]) == (200, None), "and is told no cost"
    assert sent.json()["read"] > 0
