"""The back office pays each time that it is told, and what it rates again is what the last checkpoint comes to."""

from random import Random
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from engine.events import CONTROL_BODY_START
from engine.manual_lines import Rerating
from loadtest.oracle.records import partition_of
from tests.engine.bench import Bench, versions
from tests.simulation import back_office
from tests.simulation.back_office import BackOffice
from tests.simulation.virtual_loop import VirtualLoop, run_virtually

TOLD = orjson.dumps({"data": {"account": "acme"}})


def written(bench: Bench, taken: dict[str, list[bytes]], random: Random, seconds: float = 3.0) -> list[dict[str, Any]]:
    """The commands that an office writes; each must lie in its account's partition."""
    commands: list[dict[str, Any]] = []

    def append(_topic: str, key: bytes, value: bytes, partition: int) -> None:
        assert partition == partition_of(key, 2)
        commands.append(orjson.loads(value[CONTROL_BODY_START:]))

    loop = VirtualLoop()
    world: Any = SimpleNamespace(
        broker=SimpleNamespace(down=False, sound=True, append=append),
        fired={("request_told_again", ""): 0},
        loop=loop,
        plan=SimpleNamespace(partitions=2),
        receivers=SimpleNamespace(taken=taken),
    )
    run_virtually(loop, BackOffice(world, random, seconds).run())
    assert world.fired["request_told_again", ""] == sum(len(bodies) - 1 for bodies in taken.values())
    return commands


def test_a_request_that_is_told_twice_is_answered_twice_and_any_other_alert_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(back_office, "RERATING_SHARE", 0.0)
    monkeypatch.setattr(back_office, "ANSWERED_SHARE", 1.0)
    commands = written(Bench(*versions()), {"topup_1": [TOLD, TOLD], "alert_1": [TOLD]}, Random(1))
    assert [(each["kind"], each["account"], each["request"]) for each in commands] == 2 * [
        ("answer_top_up", "acme", "topup_1")
    ]
    assert len({each["command_key"] for each in commands}) == 2


def test_what_is_rated_again_is_what_the_stored_account_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(*versions())
    bench.open()
    assert bench.publish(2, bench.now + 400_000_000) == "catalogue"
    assert bench.use(7, "third") == "rated"
    monkeypatch.setattr(back_office, "RERATING_SHARE", 1.0)
    monkeypatch.setattr(back_office, "stored_fold", lambda _world, _number: bench.partition)
    commands = written(bench, {}, Random(1))
    assert commands and all(each["kind"] == "rerate" for each in commands)
    for each in commands:
        asked = Rerating(each["version"], each["from_us"], each["to_us"])
        found = bench.partition.rerated(bench.account(), "third", asked)["third"]
        assert not isinstance(found, str) and len(each["differences"]) == len(found)
    assert bench.control(commands[0]) == "applied"
