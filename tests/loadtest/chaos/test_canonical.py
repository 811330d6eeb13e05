"""The engine's snapshot and the oracle's fold of one log have one form, byte for byte; one unit more, and they differ."""

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from engine.catalog import document_json
from engine.snapshot import encode_account
from loadtest.chaos.canonical import (
    Unreadable,
    account_of_oracle,
    account_of_snapshot,
    difference,
    partition_of_oracle,
    partition_of_snapshot,
)
from loadtest.oracle.fold import Oracle
from tests.engine.bench import DAY, HOUR, KEY, MINUTE, SECOND, TOPIC, Bench, RandomLog, versions

STEPS = 400


def folded(seed: int, stride_us: int) -> tuple[Bench, Oracle]:
    bench = Bench(*versions(), partitions=2, number=seed % 2)
    log = RandomLog(bench, random.Random(seed), stride_us=stride_us)
    for _ in range(STEPS):
        log.step()
    documents = {version: json.loads(document_json(body)) for version, body in bench.documents.items()}
    oracle = Oracle(documents, KEY, TOPIC, bench.partitions)
    for record in bench.log:
        oracle.feed(bench.number, *record)
    return bench, oracle


def form(oracle: Oracle, number: int, name: str) -> bytes:
    return account_of_oracle(oracle, number, oracle.state(number).accounts[name])


@pytest.mark.parametrize("stride_us", [10 * SECOND, 20 * MINUTE, 6 * HOUR, 2 * DAY])
@pytest.mark.parametrize("seed", range(4))
def test_a_random_log_comes_to_the_same_bytes(seed: int, stride_us: int) -> None:
    bench, oracle = folded(seed, stride_us)
    accounts = oracle.state(bench.number).accounts
    assert set(accounts) == set(bench.partition.account_ids())
    for name in accounts:
        want, have = form(oracle, bench.number, name), account_of_snapshot(encode_account(bench.account(name)))
        assert want == have, f"account {name}: {difference(want, have)}"
    cut = bench.partition.begin_cut()
    want, have = partition_of_oracle(oracle.state(bench.number)), partition_of_snapshot(cut.blob)
    assert want == have, difference(want, have)


def changed(blob: bytes, change: Callable[[list[Any]], None]) -> bytes:
    stored = msgspec.msgpack.decode(blob)
    change(stored)
    return msgspec.msgpack.encode(stored)


def test_one_unit_is_a_difference_with_a_name() -> None:
    bench, oracle = folded(1, HOUR)
    name = next(
        name for name, account in oracle.state(bench.number).accounts.items() if account.events and account.lots
    )
    blob, want = encode_account(bench.account(name)), form(oracle, bench.number, name)

    def quantity(stored: list[Any]) -> None:
        line = stored[10][0][1][0]
        line[2] = str(int(line[2]) + 1)

    def grant(stored: list[Any]) -> None:
        stored[11][0][2] = str(int(stored[11][0][2]) - 1)

    def rated(stored: list[Any]) -> None:
        stored[8] += 1

    for part, change in (("table", quantity), ("lots", grant), ("rated", rated)):
        have = account_of_snapshot(changed(blob, change))
        assert have != want
        assert difference(want, have).startswith(f"{part}: expected ")


@pytest.mark.parametrize("blob", [b"", b"\xc1", msgspec.msgpack.encode({}), msgspec.msgpack.encode([99] * 30)])
def test_what_is_no_snapshot_known_here_is_refused(blob: bytes) -> None:
    with pytest.raises(Unreadable):
        account_of_snapshot(blob)
    with pytest.raises(Unreadable):
        partition_of_snapshot(blob)
