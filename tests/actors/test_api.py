"""A replica's process: what handlers use is opened before the first request."""

from dataclasses import fields
from typing import Any

import pytest
from pydantic import SecretStr

from actors import api
from actors.api import ApiProcess
from actors.gateway_watch import GatewayWatch
from actors.kafka import TopicReader
from actors.postgres import PostgresStore
from actors.web.wire import Services
from config.settings import KafkaSettings, PostgresSettings, Settings


async def test_every_door_of_the_services_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Services] = []
    monkeypatch.setattr(api, "build_app", lambda services, replica: made.append(services))
    settings = Settings(
        control_key=SecretStr("6b" * 32),
        kafka=KafkaSettings(partitions=1, bootstrap_servers="127.0.0.1:9"),
        postgres=PostgresSettings(dsn=SecretStr("postgresql://nobody@127.0.0.1:9/none")),
    )
    process = ApiProcess(settings, "api.1")
    (services,) = made
    doors = {each.name: getattr(services, each.name) for each in fields(Services)}
    doors = {name: door for name, door in doors.items() if hasattr(door, "start")}
    assert {"floors", "advisor", "training", "costs"} <= doors.keys()
    opened: list[Any] = []
    settled: list[int] = []  # how much was open by then
    monkeypatch.setattr(api, "settle_garbage_collection", lambda: settled.append(len(opened)))

    async def start(self: Any) -> None:
        opened.append(self)

    for kind in {TopicReader, PostgresStore, GatewayWatch, *map(type, doors.values())}:
        monkeypatch.setattr(kind, "start", start)
    await process.start()
    assert settled == [0], "what it has loaded is looked at no more"
    assert any(isinstance(each, GatewayWatch) for each in opened)
    assert [name for name, door in doors.items() if all(door is not each for each in opened)] == []
