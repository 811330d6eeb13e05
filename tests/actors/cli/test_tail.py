"""`tallygate tail`: one account's lines."""

from collections.abc import AsyncIterator

import orjson
import pytest

from actors import kafka
from tests.actors.cli.calling import beside_up, call


def test_a_tail_shows_one_accounts_lines_from_the_kafka_of_up(monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up("http://127.0.0.1:1")
    asked: list[tuple[str, str]] = []
    line = {"account": "acme", "time_us": 0, "price": "p", "cell": {"model": "m"}, "quantity": "3", "amount": "0.1"}
    lines = [orjson.dumps({**line, "currency": "USD"}), orjson.dumps({**line, "account": "other"})]

    async def tail(brokers: kafka.Brokers, topic: str) -> AsyncIterator[bytes]:
        asked.append((brokers.servers, topic))
        for each in lines:
            yield each

    monkeypatch.setattr(kafka, "tail", tail)
    shown = call("tail", "--account", "acme")
    assert (shown.exit_code, shown.stdout) == (0, "1970-01-01T00:00:00Z  acme  p  m  3  0.1 USD\n")
    assert call("tail", "--json").stdout.encode().splitlines() == lines
    assert asked == [("127.0.0.1:9", "rated")] * 2
