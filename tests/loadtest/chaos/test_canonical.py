"""The engine's snapshot and the oracle's fold of one log have one form, byte for byte; one unit more, and they differ."""

import json
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from config.catalogue import load_file
from engine.catalog import document_json, load_catalogue
from engine.events import CatalogueMarker, seal
from engine.partition import Partition
from engine.snapshot import PartitionState, _Account, encode_account
from loadtest.chaos.canonical import (
    AS_IT_BEGAN,
    LEFT_OUT,
    PARTITION_PLACES,
    PLACES,
    Unreadable,
    account_of_oracle,
    account_of_snapshot,
    difference,
    has_slices,
    partition_of_oracle,
    partition_of_snapshot,
    unmade,
    unmade_of_partition,
)
from loadtest.deployment import CATALOGUE_FILE
from loadtest.gateways import wallets
from loadtest.oracle.fold import Oracle
from loadtest.workload import Workload
from tests.engine.bench import DAY, HOUR, KEY, MINUTE, SECOND, START, TOPIC, Bench, RandomLog, versions

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
    snapshots = {name: encode_account(bench.account(name)) for name in accounts}
    cut = bench.partition.begin_cut()
    want, have = partition_of_oracle(oracle.state(bench.number)), partition_of_snapshot(cut.blob)
    assert want == have, difference(want, have)
    told = unmade_of_partition(cut.blob, {name: has_slices(blob) for name, blob in snapshots.items()})
    assert [sentence for sentence in told if sentence.startswith("sliced")] == []


def changed(blob: bytes, change: Callable[[list[Any]], None]) -> bytes:
    stored = msgspec.msgpack.decode(blob)
    change(stored)
    return msgspec.msgpack.encode(stored)


def put(place: str, value: Any, places: tuple[str, ...] = PLACES) -> Callable[[list[Any]], None]:
    return lambda stored: stored.__setitem__(places.index(place), value)


def test_one_unit_is_a_difference_with_a_name() -> None:
    bench, oracle = folded(1, HOUR)
    name = next(
        name for name, account in oracle.state(bench.number).accounts.items() if account.events and account.lots
    )
    blob, want = encode_account(bench.account(name)), form(oracle, bench.number, name)

    def quantity(stored: list[Any]) -> None:
        line = stored[PLACES.index("table")][0][1][0]
        line[2] = str(int(line[2]) + 1)

    def grant(stored: list[Any]) -> None:
        lot = stored[PLACES.index("lots")][0]
        lot[2] = str(int(lot[2]) - 1)

    def rated(stored: list[Any]) -> None:
        stored[PLACES.index("rated")] += 1

    for part, change in (("table", quantity), ("lots", grant), ("rated", rated)):
        have = account_of_snapshot(changed(blob, change))
        assert have != want
        assert difference(want, have).startswith(f"{part}: expected ")


# A row that nobody made, of each place that the form holds; of a place that is no list, another value.
INVENTED: dict[str, Any] = {
    "account": "other",
    "plan": "other",
    "currency": "EUR",
    "zone": "Europe/Oslo",
    "anchor_day": 9,
    "newest_event_us": 1,
    "rated": 7,
    "table": [[0, [["price", ["cell"], "1"]]]],
    "lots": [["lot", "paid", "1", 0, 0, None, []]],
    "caps": [["cap", "1"]],
    "standings": [["rule", "window", 1, True]],
    "cap_scopes": [["cap", "", True]],
    "scopes": [["", "active", []], ["team", "active", []]],
    "rate_limits": [["limit", "", 1]],
    "debt_payers": [["lot", True]],
    "lot_changes": [["lot", [[0, "void", "1"]]]],
    "carries": [["lot", "source", 1, None]],
    "cap_windows": [["cap", "month", 0, None, "price", 1]],
    "tallies": [["cap", [[0, "1"]]]],
    "adjusted": [[0, 0, [["price", "1"]]]],
    "rules": [["rule", ["counted"], "1", "1", False, "warning"]],
    "top_up": [None, 1, 0, 0, None, False],
    "recurring": [["grant", "month", 0, "promo", "1", 0, [], False, True, None, None]],
    "opened_us": 1,
    "quantity_grants": [["grant", "price", "1", 0, 1, None]],
}
OTHERWISE: dict[type, Any] = {list: [["invented"]], int: 1, bool: True, str: "1", type(None): "invented"}


@pytest.fixture(scope="module")
def fresh() -> bytes:
    """An account of which nothing has come yet."""
    bench = Bench(*versions())
    bench.open("acme")
    return encode_account(bench.account("acme"))


def test_what_the_load_of_a_run_leaves_has_the_same_form_and_nothing_that_nobody_made() -> None:
    """Usage and held wallets as every phase sends them, without servers."""
    body = document_json(load_file(CATALOGUE_FILE))
    fold = Partition(0, 1, TOPIC, KEY, {1: load_catalogue(1, body)})
    oracle = Oracle({1: json.loads(body)}, KEY, TOPIC, 1)
    usage, asking = (
        Workload(1, 400, 20, None, 10.0, catalogue=json.loads(body), partitions=1, prefix=prefix)
        for prefix in ("cus", "gw")
    )
    marker = msgspec.json.encode(CatalogueMarker(1, 0))
    records: list[tuple[int, bytes | None, bytes | None]] = [(START, None, seal(KEY, TOPIC, 0, marker))]
    records += [
        (START, command["account"].encode(), seal(KEY, TOPIC, 0, json.dumps(command).encode()))
        for command in [*usage.setup(START + SECOND), *wallets(asking)]
    ]
    for send in usage:
        now = START + SECOND + round(send.at_s * SECOND)
        value = send.render(now)
        sealed = value if send.seal_partition is None or value is None else seal(KEY, TOPIC, send.seal_partition, value)
        records.append((now, send.key, sealed))
    for offset, (now, key, value) in enumerate(records):
        fold.apply(offset, now // 1000, key, value)
        oracle.feed(0, offset, now // 1000, key, value)
    accounts = oracle.state(0).accounts
    assert len(accounts) == 40
    assert oracle.outcomes[0]["rated"] > 390
    snapshots = {}
    for name in accounts:
        account = fold.account(name)
        assert account is not None
        blob = snapshots[name] = encode_account(account)
        want, have = form(oracle, 0, name), account_of_snapshot(blob)
        assert want == have, f"account {name}: {difference(want, have)}"
        assert unmade(blob) == []
    header = fold.begin_cut().blob
    assert partition_of_oracle(oracle.state(0)) == partition_of_snapshot(header)
    assert unmade_of_partition(header, {name: has_slices(blob) for name, blob in snapshots.items()}) == []


def test_every_place_of_a_snapshot_has_a_name_here() -> None:
    assert _Account.__struct_fields__ == PLACES
    assert PartitionState.__struct_fields__ == PARTITION_PLACES
    assert {*INVENTED, *LEFT_OUT, *AS_IT_BEGAN} == {*PLACES} - {"version"}


def test_a_fresh_account_holds_nothing_that_nobody_made(fresh: bytes) -> None:
    assert unmade(fresh) == []


@pytest.mark.parametrize("place", INVENTED)
def test_what_is_invented_in_the_form_is_seen(fresh: bytes, place: str) -> None:
    assert account_of_snapshot(changed(fresh, put(place, INVENTED[place]))) != account_of_snapshot(fresh)


@pytest.mark.parametrize("place", AS_IT_BEGAN)
def test_what_the_form_leaves_out_must_be_empty(fresh: bytes, place: str) -> None:
    began, _ = AS_IT_BEGAN[place]
    spoilt = changed(fresh, put(place, OTHERWISE[type(began)]))
    assert account_of_snapshot(spoilt) == account_of_snapshot(fresh), "it is part of the form: it needs no default"
    (sentence,) = unmade(spoilt)
    assert sentence.startswith(f"{place}: expected {began}, as ")


@pytest.mark.parametrize(
    ("place", "rows", "sentence"),
    [
        ("cap_scopes", [["cap", "", False]], "cap cap: expected hard, found soft"),
        (
            "rules",
            [["rule", ["counted"], "1", "1", False, "critical"]],
            "rule rule: expected a warning, found critical",
        ),
        ("scopes", [["", "suspended", []]], "scope '': expected active, found suspended"),
    ],
)
def test_parts_of_rows_that_the_form_leaves_out_must_be_as_they_begin(
    fresh: bytes, place: str, rows: list[list[Any]], sentence: str
) -> None:
    assert unmade(changed(fresh, put(place, rows))) == [sentence]


def test_the_root_scope_keeps_no_spend_of_its_own(fresh: bytes) -> None:
    spoilt = changed(fresh, put("scopes", [["", "active", [[0, "5"]]]]))
    assert account_of_snapshot(spoilt) != account_of_snapshot(fresh)


def test_a_partition_lists_who_has_slices_and_nobody_else() -> None:
    bench = Bench(*versions())
    bench.open("acme")
    blob = bench.partition.begin_cut().blob
    assert unmade_of_partition(blob, {"acme": False}) == []
    assert unmade_of_partition(blob, {"acme": True}) == ["sliced: expected acme to be listed, found it not"]
    for place in ("sliced", "bound", "leased"):
        (sentence,) = unmade_of_partition(changed(blob, put(place, ["ghost"], PARTITION_PLACES)), {"acme": False})
        assert sentence.startswith(f"{place}: expected ")


def test_a_place_that_has_no_name_here_is_not_passed_over(fresh: bytes) -> None:
    with pytest.raises(Unreadable, match="58 places; 57 have a name here"):
        unmade(changed(fresh, lambda stored: stored.append(0)))


@pytest.mark.parametrize("blob", [b"", b"\xc1", msgspec.msgpack.encode({}), msgspec.msgpack.encode([99] * 30)])
def test_what_is_no_snapshot_known_here_is_refused(blob: bytes) -> None:
    with pytest.raises(Unreadable):
        account_of_snapshot(blob)
    with pytest.raises(Unreadable):
        partition_of_snapshot(blob)
