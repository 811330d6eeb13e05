"""The oracle against cases worked out by hand from `engine/README.md`, one group per table of that text."""

import ast
import base64
import hashlib
import hmac
import json
import random
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as kafka_murmur2

from loadtest import oracle
from loadtest.oracle.accounts import OracleAccount
from loadtest.oracle.fold import Oracle
from loadtest.oracle.periods import period_of
from loadtest.oracle.records import fixed_point, murmur2, partition_of, time_us_of

KEY = b"control key of the tests"
TOPIC = "usage"
SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR
DOLLAR = 10**12


def instant(text: str) -> int:
    """Microseconds of an ISO time; UTC unless it says otherwise."""
    time = datetime.fromisoformat(text)
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return round(time.timestamp()) * SECOND


START = instant("2024-03-10T12:00:00")


def per_unit(meter: str, model: str, amount: str, per: str = "1000000") -> dict[str, Any]:
    return {"meter": meter, "where": {"model": model}, "model": "per_unit", "amount": amount, "per": per, "tiers": []}


def graduated(meter: str, model: str, *tiers: tuple[str | None, str], per: str = "1") -> dict[str, Any]:
    rows = [{"up_to": up_to, "amount": amount, "per": per} for up_to, amount in tiers]
    return {"meter": meter, "where": {"model": model}, "model": "graduated", "amount": None, "per": "1", "tiers": rows}


def sum_meter(name: str) -> dict[str, Any]:
    return {"event_type": "llm.request", "aggregation": "sum", "field": name, "group_by": ["model"]}


def document(close_after_days: int = 1, **growth: dict[str, Any]) -> dict[str, Any]:
    """Two plans; atlas costs $0.15 in and $30/$40/$50 out; x and y cost $1 a unit in and nothing out."""
    closes = {"close_after_s": close_after_days * 86_400}
    prices = {
        "atlas_in": per_unit("input_tokens", "atlas", "0.15"),
        "atlas_out": graduated("output_tokens", "atlas", ("10", "30"), ("50", "40"), (None, "50")),
        "x_in": per_unit("input_tokens", "x", "1", "1"),
        "x_out": per_unit("output_tokens", "x", "0", "1"),
        "y_in": per_unit("input_tokens", "y", "1", "1"),
        "y_out": per_unit("output_tokens", "y", "0", "1"),
        "third_in": per_unit("input_tokens", "third", "0.000000000001", "3"),
        "third_out": per_unit("output_tokens", "third", "0", "1"),
    }
    return {
        "meters": {"input_tokens": sum_meter("input_tokens"), "output_tokens": sum_meter("output_tokens")},
        "plans": {
            "starter": {"currency": "USD", "prices": prices} | closes,
            "growth": {"currency": "USD", "prices": prices | growth} | closes,
        },
    }


class Fold:
    """A log of one or more partitions that the oracle reads as it is written."""

    def __init__(self, *documents: dict[str, Any], partitions: int = 1, paranoid: bool = True) -> None:
        catalogues = dict(enumerate(documents or (document(),), start=1))
        self.oracle = Oracle(catalogues, KEY, TOPIC, partitions, paranoid=paranoid)
        self.offsets = dict.fromkeys(range(partitions), 0)
        self.now = START
        self.keys = 0
        for partition in range(partitions):
            self.control({"kind": "catalogue", "version": 1, "effective_us": START}, partition)

    def record(self, key: bytes | None, value: bytes | None, partition: int = 0) -> str:
        offset = self.offsets[partition]
        self.offsets[partition] += 1
        return self.oracle.feed(partition, offset, self.now // 1000, key, value)

    def control(self, body: dict[str, Any] | bytes, partition: int = 0) -> str:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.record(None, seal(partition, raw), partition)

    def command(self, kind: str, account: str = "acme", **fields: Any) -> str:
        self.keys += 1
        body = {"kind": kind, "account": account, "command_key": f"key-{self.keys}"} | fields
        return self.control(body, partition_of(account.encode(), len(self.offsets)))

    def open(self, account: str = "acme", **fields: Any) -> str:
        return self.command("open_account", account, **({"plan": "starter"} | fields))

    def grant(self, lot: str, dollars: str, kind: str = "paid", account: str = "acme", **fields: Any) -> str:
        """A lot, one millisecond later: at the very time of the newest event it would not be effective yet."""
        self.now += 1000
        fields = {"lot": lot, "lot_kind": kind, "amount": dollars, "currency": "USD"} | fields
        return self.command("grant", account, **fields)

    def rule(self, rule: str, measure: str, account: str = "acme", **on: Any) -> str:
        return self.command("set_rule", account, rule=rule, on={"measure": measure} | on)

    def use(
        self,
        input_tokens: object = 0,
        output_tokens: object = 0,
        model: object = "atlas",
        at: int | None = None,
        account: str = "acme",
        **attributes: Any,
    ) -> str:
        value = cloud_event(input_tokens, output_tokens, model, self.now if at is None else at, **attributes)
        return self.record(account.encode(), value, partition_of(account.encode(), len(self.offsets)))

    def tick(self, at: int) -> None:
        self.now = at
        assert self.control({"kind": "tick", "epoch": 0}) == "tick"

    def charge(self, price: str) -> int:
        """Of the newest rated event."""
        return list(self.oracle.rated.values())[-1].prices[price][1]

    def account(self, name: str = "acme") -> OracleAccount:
        return self.oracle.accounts[name]

    def told(self) -> list[tuple[str, str, int, str]]:
        return [(a["rule"], a["window"], a["ordinal"], a["phase"]) for a in self.oracle.alerts.values()]


def seal(partition: int, body: bytes, key: bytes = KEY) -> bytes:
    message = TOPIC.encode() + b"\0" + str(partition).encode() + b"\0" + body
    return b"TGC1" + hmac.new(key, message, hashlib.sha256).digest() + body


def cloud_event(
    input_tokens: object = 1,
    output_tokens: object = 0,
    model: object = "atlas",
    time_us: int | None = START,
    **attributes: Any,
) -> bytes:
    """A valid event; `attributes` replace its own, and None takes one away."""
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": uuid.uuid4().hex,
        "source": "gateway-1",
        "type": "llm.request",
        "data": {"model": model, "input_tokens": input_tokens, "output_tokens": output_tokens},
    }
    if time_us is not None:
        event["time"] = datetime.fromtimestamp(time_us // SECOND, UTC).isoformat()[:19] + f".{time_us % SECOND:06d}Z"
    event |= attributes
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


@pytest.fixture
def fold() -> Fold:
    fold = Fold()
    assert fold.open() == "applied"
    return fold


# ------------------------------------------------------------------------------------------------------ independence


@pytest.mark.parametrize("path", sorted(Path(oracle.__path__[0]).glob("*.py")), ids=lambda path: path.name)
def test_shares_no_code_with_the_product(path: Path) -> None:
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            imported = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported = [str(node.module)]
        else:
            continue
        for name in imported:
            ours = name.split(".")[0] in {"engine", "actors", "config", "loadtest", "tests"}
            assert not ours or name.startswith("loadtest.oracle."), name
    assert "importlib.import_module" not in text


def test_murmur2_is_kafkas() -> None:
    source = random.Random(1)
    for length in range(40):
        data = source.randbytes(length)
        assert murmur2(data) == kafka_murmur2(data) & 0x7FFFFFFF
    assert partition_of(b"cus_0001", 8) == (kafka_murmur2(b"cus_0001") & 0x7FFFFFFF) % 8


# ------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5 * 10**9),
        ("5.0", 5 * 10**9),
        ("0.000000001", 1),
        ("-2", -2 * 10**9),
        ("999999999999999999", 999999999999999999 * 10**9),
        ("1000000000000000000", None),
        ("0.0000000001", None),
        ("1e3", None),
        ("NaN", None),
        ("", None),
        (".5", None),
        ("5.", None),
        ("+5", None),
        (" 5", None),
        ("5\n", None),
        ("\u0665", None),
    ],
)
def test_m1_numbers_are_read_as_written(text: str, value: int | None) -> None:
    assert fixed_point(text, 9) == value


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2024-03-10T12:00:00Z", START),
        ("2024-03-10t12:00:00z", START),
        ("2024-03-10T13:00:00+01:00", START),
        ("2024-03-10T12:00:00.1234567Z", START + 123456),
        ("2024-03-10T12:00:00", None),
        ("2024-03-10T12:00:60Z", None),
        ("2024-03-10T12:00:00+24:00", None),
        ("2024-02-30T12:00:00Z", None),
        ("20240310T120000Z", None),
        ("yesterday", None),
    ],
)
def test_times_are_rfc_3339_to_the_microsecond(text: str, same_as: int | None) -> None:
    assert time_us_of(text) == same_as


# ------------------------------------------------------------------------------------------------------- amounts (R1)


def test_graduated_worked_example(fold: Fold) -> None:
    fold.use(0, 60)
    assert fold.charge("atlas_out") == (300 + 1600 + 500) * DOLLAR
    fold.use(0, 40)
    assert fold.charge("atlas_out") == 2000 * DOLLAR
    march = instant("2024-03-01")
    assert fold.account().amounts[(march, "atlas_out")] == 4400 * DOLLAR
    assert fold.account().counters[(march, "atlas_out", ("atlas",))] == 100 * 10**9
    assert fold.account().debt == 4400 * DOLLAR
    assert fold.account().balance == -4400 * DOLLAR


def test_a_tier_ends_at_its_upper_limit(fold: Fold) -> None:
    fold.use(0, 10)
    assert fold.charge("atlas_out") == 300 * DOLLAR
    fold.use(0, 1)
    assert fold.charge("atlas_out") == 40 * DOLLAR


def test_one_token_owes_150000_pico(fold: Fold) -> None:
    fold.use(1)
    assert fold.charge("atlas_in") == 150_000


def test_thirds_of_a_pico_round_once_on_the_total(fold: Fold) -> None:
    charges = []
    for _ in range(3):
        fold.use(1, 0, "third")
        charges.append(fold.charge("third_in"))
    assert charges == [0, 1, 0]


def test_segments_of_a_period_are_rounded_on_the_running_total(fold: Fold) -> None:
    fold.grant("early", "1", expires_us=START + HOUR)
    fold.use(2, 0, "third")
    fold.now = START + 2 * HOUR
    fold.use(2, 0, "third")
    # 2/3 rounds to 1 and 4/3 to 1: the lot paid the first pico, and the second segment owes none
    assert fold.charge("third_in") == 0
    assert fold.account().lots["early"].burnt == 1
    assert fold.account().debt == 0


def test_a_half_rounds_to_even() -> None:
    half = per_unit("input_tokens", "third", "0.000000000001", "2")
    fold = Fold(document(third_in=half))
    fold.open(plan="growth")
    charges = []
    for _ in range(4):
        fold.use(1, 0, "third")
        charges.append(fold.charge("third_in"))
    assert charges == [0, 1, 1, 0]  # totals 0.5, 1, 1.5, 2 round to 0, 1, 2, 2


def test_the_wallet_does_not_depend_on_the_order_of_arrival() -> None:
    results = []
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        fold = Fold()
        fold.open()
        fold.grant("a", "1000", expires_us=START + 60 * SECOND, effective_us=START - DAY)
        events = [(7, 9, START - HOUR), (3, 30, START + 70 * SECOND), (11, 20, START + 10 * SECOND)]
        fold.now = START + 80 * SECOND
        for index in order:
            tokens_in, tokens_out, at = events[index]
            fold.use(tokens_in, tokens_out, at=at)
        account = fold.account()
        results.append((account.lots, account.debt, account.amounts, account.counters))
    assert results[0] == results[1] == results[2]


# ---------------------------------------------------------------------------------------------------------- versions


def test_a_new_version_continues_the_counters() -> None:
    dearer = document(atlas_out=graduated("output_tokens", "atlas", ("10", "60"), (None, "100")))
    fold = Fold(document(), dearer)
    fold.open(plan="growth")
    change = START + HOUR
    assert fold.control({"kind": "catalogue", "version": 2, "effective_us": change}) == "catalogue"
    fold.use(0, 8)
    fold.now = change + 1000
    fold.use(0, 4, at=change - 1000)  # its own time is before the change: the old version
    assert fold.charge("atlas_out") == (2 * 30 + 2 * 40) * DOLLAR
    fold.use(0, 5, at=change)  # at the boundary: the new version, from the twelfth unit on
    assert fold.charge("atlas_out") == 500 * DOLLAR
    # A late unit under the old version moves the units of the new one: A2(13..18) is as dear, A1(13) adds 40.
    fold.use(0, 1, at=change - 1)
    assert fold.charge("atlas_out") == 40 * DOLLAR
    assert fold.account().amounts[(instant("2024-03-01"), "atlas_out")] == (300 + 3 * 40 + 500) * DOLLAR


@pytest.mark.parametrize(("version", "after_s"), [(1, 3600), (2, 300)])
def test_a_catalogue_marker_that_comes_too_late_is_void(version: int, after_s: int) -> None:
    fold = Fold(document(), document())
    marker = {"kind": "catalogue", "version": version, "effective_us": START + after_s * SECOND}
    assert fold.control(marker) == "dead_lettered.bad_control"


def test_the_first_version_is_for_all_time(fold: Fold) -> None:
    assert fold.use(1, at=START - 20 * DAY) == "rated"


def test_no_meter_before_a_catalogue() -> None:
    oracle = Oracle({}, KEY, TOPIC, 1)
    body = b'{"kind":"open_account","account":"acme","command_key":"k","plan":"starter"}'
    assert oracle.feed(0, 0, START // 1000, None, seal(0, body)) == "refused.unknown_plan"


# ----------------------------------------------------------------------------------------------------------- periods


@pytest.mark.parametrize(
    ("zone", "anchor", "at", "start"),
    [
        ("UTC", 1, "2024-03-01T00:00:00", "2024-03-01T00:00:00"),
        ("UTC", 1, "2024-02-29T23:59:59", "2024-02-01T00:00:00"),
        ("UTC", 31, "2024-02-29T00:00:00", "2024-02-29T00:00:00"),
        ("UTC", 31, "2024-02-28T23:59:59", "2024-01-31T00:00:00"),
        ("UTC", 31, "2024-03-30T00:00:00", "2024-02-29T00:00:00"),
        ("UTC", 31, "2024-03-31T00:00:00", "2024-03-31T00:00:00"),
        ("UTC", 30, "2023-03-01T00:00:00", "2023-02-28T00:00:00"),
        ("America/New_York", 1, "2024-03-01T04:59:59", "2024-02-01T05:00:00"),
        ("America/New_York", 1, "2024-03-01T05:00:00", "2024-03-01T05:00:00"),
        ("America/New_York", 1, "2024-04-01T04:00:00", "2024-04-01T04:00:00"),
        ("Asia/Kolkata", 15, "2024-05-14T18:30:00", "2024-05-14T18:30:00"),
        # Cairo skips 00:00-01:00 on 2024-04-26: the day begins at 01:00 (+03:00), the instant of the jump
        ("Africa/Cairo", 26, "2024-04-25T22:00:00", "2024-04-25T22:00:00"),
        ("Africa/Cairo", 26, "2024-04-25T21:59:59", "2024-03-25T22:00:00"),
        # Havana repeats 00:00-01:00 on 2024-11-03: the first midnight (-04:00) counts
        ("America/Havana", 3, "2024-11-03T04:00:00", "2024-11-03T04:00:00"),
        ("America/Havana", 3, "2024-11-03T05:30:00", "2024-11-03T04:00:00"),
        # Samoa has no 2011-12-30 at all: its period begins when the 31st does
        ("Pacific/Apia", 30, "2011-12-30T10:00:00", "2011-12-30T10:00:00"),
        ("Pacific/Apia", 30, "2011-12-30T09:59:59", "2011-11-30T10:00:00"),
        # Toronto skipped 23:30 to 00:30 in 1919: the first existing instant after midnight is 00:30
        ("America/Toronto", 31, "1919-03-31T04:30:00", "1919-03-31T04:30:00"),
        ("America/Toronto", 31, "1919-03-31T04:29:59", "1919-02-28T05:00:00"),
    ],
)
def test_r2_period_starts(zone: str, anchor: int, at: str, start: str) -> None:
    assert period_of(zone, anchor, instant(at)) == instant(start)


def test_a_price_starts_again_with_the_period_and_spend_with_the_month() -> None:
    fold = Fold(document(close_after_days=30))
    fold.open(anchor_day=5, zone="America/New_York")
    fold.now = instant("2024-03-20")
    for at in ("2024-03-05T04:59:59", "2024-03-05T05:00:00", "2024-03-01T04:59:59"):
        fold.use(1, 0, "x", at=instant(at))
    february, march = instant("2024-02-05T05:00:00"), instant("2024-03-05T05:00:00")
    account = fold.account()
    assert {key: value for key, value in account.amounts.items() if key[1] == "x_in"} == {
        (february, "x_in"): 2 * DOLLAR,
        (march, "x_in"): DOLLAR,
    }
    assert account.spend == {instant("2024-02-01T05:00"): DOLLAR, instant("2024-03-01T05:00"): 2 * DOLLAR}


# ------------------------------------------------------------------------------------------------------------ credit


def dollars(account: OracleAccount) -> dict[str, tuple[float, float, float, float]]:
    """granted, burnt, expired, remaining."""
    for lot in account.lots.values():
        assert lot.granted + lot.refunded == lot.burnt + lot.voided + lot.expired + lot.remaining
    return {name: tuple(part / DOLLAR for part in lot[:4]) for name, lot in account.lots.items()}  # type: ignore[misc]


def test_lots_pay_by_priority_then_expiry_then_effective_then_id(fold: Fold) -> None:
    fold.grant("e", "1", priority=20, effective_us=START)
    fold.grant("d", "1", priority=20, expires_us=START + 3 * DAY)
    fold.grant("c", "1", priority=20, expires_us=START + 2 * DAY)
    fold.grant("b", "1", priority=20, effective_us=START - DAY)
    fold.grant("a", "1", priority=20, effective_us=START)
    fold.grant("z", "1", priority=10, kind="promo")
    paid = []
    for _ in range(6):
        fold.use(1, 0, "x")
        paid.append({name for name, lot in dollars(fold.account()).items() if lot[1] == 1})
    order = [next(iter(now - before)) for before, now in zip([set(), *paid], paid, strict=False)]
    assert order == ["z", "c", "d", "b", "a", "e"]
    fold.use(1, 0, "x")
    assert fold.account().debt == DOLLAR


def test_money_paid_back_is_void_and_what_was_burnt_of_it_is_owed_again(fold: Fold) -> None:
    fold.grant("card", "10")
    fold.use(7, 0, "x")
    fold.now += 60 * 1_000_000
    fold.command("void_lot", lot="card", amount="8", currency="USD")
    fold.command("refund_lot", lot="card", amount="2", currency="USD")
    assert fold.command("void_lot", lot="card", amount="3", currency="USD") == "refused.exceeds_lot"
    card = fold.account().lots["card"]
    assert [part / DOLLAR for part in card] == [10, 9, 0, 0, 7, 8, 0]
    assert fold.account().debt == 3 * DOLLAR


def test_c3_what_is_left_is_carried_and_is_no_lot_before(fold: Fold) -> None:
    expires = fold.now + 3_600 * 1_000_000
    fold.grant("l", "1000", "promo", expires_us=expires, rollover={"percent": 50, "days": 1})
    fold.use(600, 0, "x")
    fold.now += 60 * 1_000_000
    assert fold.command("void_lot", lot="l~carried", currency="USD") == "refused.unknown_lot"
    fold.tick(expires)
    lots = {name: [part / DOLLAR for part in lot] for name, lot in fold.account().lots.items()}
    assert lots == {"l": [1000, 600, 200, 0, 0, 0, 200], "l~carried": [200, 0, 0, 200, 0, 0, 0]}
    assert fold.account().balance == 200 * DOLLAR


@pytest.mark.parametrize("order", ["xy", "yx"])
def test_the_class_with_the_fewest_lots_is_paid_first(fold: Fold, order: str) -> None:
    fold.grant("all", "10", priority=1)
    fold.grant("only_x", "10", priority=2, scope=["x_in"])
    for model in order:
        fold.use(10, 0, model)
    assert dollars(fold.account()) == {"all": (10, 10, 0, 0), "only_x": (10, 10, 0, 0)}
    assert fold.account().debt == 0


def test_classes_of_the_same_size_go_by_their_sorted_ids(fold: Fold) -> None:
    fold.grant("b", "5", scope=["x_in"], priority=1)
    fold.grant("c", "5", scope=["y_in"], priority=1)
    fold.grant("a", "5", scope=["x_in", "y_in"], priority=1)
    fold.use(10, 0, "y")
    fold.use(10, 0, "x")
    # (a, b) pays x first and takes all of a; y has c alone: its debt is 5 either way, but b is burnt in full
    assert dollars(fold.account()) == {"a": (5, 5, 0, 0), "b": (5, 5, 0, 0), "c": (5, 5, 0, 0)}
    assert fold.account().debt == 5 * DOLLAR


def test_a_lot_pays_inside_its_validity_only(fold: Fold) -> None:
    fold.grant("short", "10", effective_us=START, expires_us=START + HOUR, kind="promo")
    fold.now = START + 2 * HOUR
    fold.use(1, 0, "x", at=START - 1)
    fold.use(1, 0, "x", at=START)
    fold.use(1, 0, "x", at=START + HOUR - 1)
    fold.use(1, 0, "x", at=START + HOUR)
    assert dollars(fold.account()) == {"short": (10, 2, 8, 0)}
    assert fold.account().debt == 2 * DOLLAR
    assert fold.account().balance == -2 * DOLLAR


def test_late_usage_takes_from_what_had_expired(fold: Fold) -> None:
    fold.grant("short", "10", effective_us=START, expires_us=START + HOUR)
    fold.tick(START + HOUR)
    assert dollars(fold.account()) == {"short": (10, 0, 10, 0)}
    fold.use(3, 0, "x", at=START + HOUR - 1)
    assert dollars(fold.account()) == {"short": (10, 3, 7, 0)}


def test_a_paid_lot_settles_debt_and_a_promotional_one_does_not(fold: Fold) -> None:
    fold.use(3, 0, "x")
    fold.grant("gift", "10", kind="promo")
    assert (fold.account().debt, fold.account().balance) == (3 * DOLLAR, 7 * DOLLAR)
    fold.grant("money", "2")
    assert fold.account().debt == DOLLAR
    fold.grant("more", "5", kind="paid")
    assert dollars(fold.account())["more"] == (5, 1, 0, 4)
    assert fold.account().balance == 14 * DOLLAR


def test_a_lot_pays_for_nothing_rated_before_it_but_debt(fold: Fold) -> None:
    ahead = START + 200 * SECOND
    fold.use(3, 0, "x", at=ahead)
    fold.grant("money", "10", effective_us=START - DAY)  # moved to ahead + 1 us, which log time has not reached
    assert dollars(fold.account()) == {"money": (10, 0, 0, 10)}
    assert fold.account().balance == -3 * DOLLAR
    fold.tick(ahead)
    assert fold.account().debt == 3 * DOLLAR
    fold.tick(ahead + 1000)
    assert fold.account().debt == 0
    assert fold.account().balance == 7 * DOLLAR


def test_debt_is_settled_at_the_instant_of_the_lot_before_its_own_usage(fold: Fold) -> None:
    fold.use(5, 0, "x", at=START - HOUR)
    fold.grant("later", "6", effective_us=START + HOUR)
    fold.use(2, 0, "x", at=START)
    fold.now = START + 2 * HOUR
    fold.use(4, 0, "x")
    # of 6: 5 + 1 go to debts in time order, nothing is left for the usage of its own time
    assert dollars(fold.account()) == {"later": (6, 6, 0, 0)}
    assert fold.account().debt == 5 * DOLLAR


def test_usage_ahead_of_log_time_may_be_paid_by_a_lot_not_yet_effective(fold: Fold) -> None:
    fold.use(1, 0, "x", at=START)
    fold.grant("soon", "10", effective_us=START + 100 * SECOND)
    fold.use(2, 0, "x", at=START + 150 * SECOND)
    assert dollars(fold.account()) == {"soon": (10, 2, 0, 8)}
    assert fold.account().balance == -DOLLAR  # not counted before it is effective, and no debt settled
    fold.tick(START + 100 * SECOND)
    assert fold.account().balance == 7 * DOLLAR


def test_balance_counts_lots_up_to_their_expiry(fold: Fold) -> None:
    fold.grant("a", "1", effective_us=START + HOUR, expires_us=START + 2 * HOUR)
    balances = []
    for at in (START, START + HOUR - 1000, START + HOUR, START + 2 * HOUR - 1000, START + 2 * HOUR):
        fold.tick(at)
        balances.append(fold.account().balance // DOLLAR)
    assert balances == [0, 0, 1, 1, 0]


# ------------------------------------------------------------------------------------------------------------- rules


def test_cap_rules_cross_at_the_threshold_and_keep_their_month() -> None:
    fold = Fold(document(close_after_days=30))
    fold.open()
    month, before = str(instant("2024-03-01")), str(instant("2024-02-01"))
    fold.command("set_cap", cap="monthly", amount="10", currency="USD")
    fold.rule("r80", "cap_percent", cap="monthly", percent=80)
    fold.rule("r100", "cap_percent", cap="monthly", percent=100)
    fold.use(7, 0, "x")
    assert fold.told() == []
    fold.use(1, 0, "x")
    assert fold.told() == [("r80", month, 1, "crossed")]
    fold.use(9, 0, "x", at=instant("2024-02-29T23:59:59"))
    fold.use(2, 0, "x")
    assert fold.told()[1:] == [("r80", before, 1, "crossed"), ("r100", month, 1, "crossed")]


def test_a_raised_cap_recovers_and_the_next_crossing_is_the_second(fold: Fold) -> None:
    month = str(instant("2024-03-01"))
    fold.command("set_cap", cap="c", amount="10", currency="USD")
    fold.use(9, 0, "x")
    fold.rule("r", "cap_percent", cap="c", percent=80, clear_percent=40)
    fold.command("set_cap", cap="c", amount="20", currency="USD")  # 45 %: not below 40
    assert fold.told() == [("r", month, 1, "crossed")]
    fold.command("set_cap", cap="c", amount="30", currency="USD")
    assert fold.told()[1:] == [("r", month, 1, "recovered")]
    fold.use(15, 0, "x")
    assert fold.told()[2:] == [("r", month, 2, "crossed")]


def test_a_balance_rule_crosses_recovers_and_crosses_again(fold: Fold) -> None:
    fold.grant("a", "10")
    fold.rule("low", "balance", threshold="2", clear="5")
    fold.use(8, 0, "x")
    fold.grant("b", "3")  # 5 is not above 5
    assert fold.told() == [("low", "-", 1, "crossed")]
    fold.grant("c", "0.000000000001")
    assert fold.told()[1:] == [("low", "-", 1, "recovered")]
    fold.use(4, 0, "x")
    assert fold.told()[2:] == [("low", "-", 2, "crossed")]


def test_an_expiry_is_told_by_the_record_that_moved_log_time(fold: Fold) -> None:
    fold.grant("a", "10", expires_us=START + HOUR)
    fold.rule("low", "balance", threshold="0")
    fold.now = START + HOUR
    assert fold.record(b"acme", b"not json") == "dead_lettered.malformed"
    alert = next(iter(fold.oracle.alerts.values()))
    assert (alert["rule"], alert["offset"]) == ("low", fold.offsets[0] - 1)


def test_wake_ups_go_by_instant_then_account() -> None:
    fold = Fold()
    for account, after in (("b", HOUR), ("a", 2 * HOUR), ("c", HOUR)):
        fold.open(account)
        fold.grant("lot", "1", account=account, expires_us=START + after)
        fold.rule("low", "balance", account=account, threshold="0")
    fold.tick(START + 3 * HOUR)
    assert [alert["account"] for alert in fold.oracle.alerts.values()] == ["b", "c", "a"]


def test_two_lots_of_one_account_wake_it_at_each_instant(fold: Fold) -> None:
    fold.rule("low", "balance", threshold="0")
    fold.grant("a", "1", effective_us=START + HOUR, expires_us=START + 2 * HOUR)
    fold.grant("b", "1", effective_us=START + 3 * HOUR, expires_us=START + 4 * HOUR)
    fold.tick(START + 5 * HOUR)
    assert fold.told() == [
        ("low", "-", 1, "crossed"),
        ("low", "-", 1, "recovered"),
        ("low", "-", 2, "crossed"),
        ("low", "-", 2, "recovered"),
        ("low", "-", 3, "crossed"),
    ]


def test_an_hour_far_above_the_hours_before_it_is_told_and_the_next_calm_one_as_well(fold: Fold) -> None:
    hour = START - START % HOUR
    fold.rule("up", "spike", percent=300, minimum="2", bucket_s=3600)
    for number in range(24):
        fold.tick(hour + (number + 1) * HOUR)
        fold.use(1, 0, "x", at=START)  # late: it counts when it comes
    fold.tick(hour + 25 * HOUR)
    fold.use("2.999999999", 0, "x")
    assert fold.told() == []
    fold.use("0.000000001", 0, "x")
    assert fold.told() == [("up", "bucket", 1, "crossed")]
    fold.tick(hour + 26 * HOUR)
    assert fold.told() == [("up", "bucket", 1, "crossed")]
    fold.tick(hour + 27 * HOUR)
    assert fold.told()[1:] == [("up", "bucket", 1, "recovered")]


def test_a_lot_that_will_expire_is_told_of_while_there_is_enough_on_it(fold: Fold) -> None:
    fold.grant("a", "10", expires_us=START + 10 * HOUR)
    fold.rule("soon", "expiring", threshold="5", clear="2", within_s=7200)
    fold.rule("half", "lot_percent", lot="a", percent=50)
    fold.tick(START + 8 * HOUR)
    assert fold.told() == [("soon", "lot:a", 1, "crossed")]
    fold.use(9, 0, "x")
    assert fold.told()[1:] == [("half", "-", 1, "crossed"), ("soon", "lot:a", 1, "recovered")]


def test_what_another_lot_gets_of_one_was_not_used(fold: Fold) -> None:
    fold.grant("a", "10", expires_us=START + HOUR, rollover={"percent": 100, "days": 1})
    fold.rule("half", "lot_percent", lot="a", percent=50)
    fold.tick(START + HOUR)
    assert fold.told() == []
    fold.use(9, 0, "x")
    assert fold.told() == []


def test_what_a_removed_rule_had_active_is_told_as_over_and_its_ordinals_go_on(fold: Fold) -> None:
    for threshold in ("1", "2"):
        fold.rule("low", "balance", threshold=threshold)
        assert fold.command("remove_rule", rule="low") == "applied"
    assert [row[2:] for row in fold.told()] == [(1, "crossed"), (1, "recovered"), (2, "crossed"), (2, "recovered")]


def test_rules_are_told_in_the_order_of_their_ids(fold: Fold) -> None:
    fold.command("set_cap", cap="c", amount="1", currency="USD")
    fold.grant("a", "5")
    fold.rule("b", "cap_percent", cap="c", percent=100)
    fold.rule("c", "cap_percent", cap="c", percent=50)
    fold.rule("a", "balance", threshold="4")
    fold.use(1, 0, "x")
    assert [rule for rule, *_ in fold.told()] == ["a", "b", "c"]


def test_alert_ids_are_the_hash_of_what_they_name(fold: Fold) -> None:
    fold.rule("low", "balance", threshold="0")
    text = b"\0".join([b"acme", b"low", b"-", b"1", b"crossed"])
    assert list(fold.oracle.alerts) == ["alert_" + hashlib.sha256(text).hexdigest()[:32]]


def test_c5_credit_is_asked_for_once_and_its_payment_is_a_lot(fold: Fold) -> None:
    fold.grant("a", "85")
    fold.command("set_top_up", threshold="20", amount="50", currency="USD")
    fold.use(65, 0, "x")
    fold.use(40, 1, "x")
    text = b"\0".join([b"acme", b"top_up", b"request", b"1", b"requested"])
    request = "topup_" + hashlib.sha256(text).hexdigest()[:32]
    assert list(fold.oracle.alerts) == [request]
    assert fold.command("grant", lot=request, lot_kind="promo", amount="1", currency="USD") == "refused.lot_exists"
    assert fold.command("answer_top_up", request=request, paid=True) == "applied"
    assert fold.command("answer_top_up", request=request, paid=True) == "refused.lot_exists"
    fold.tick(START + 2 * SECOND)
    assert (fold.account().balance, fold.account().lots[request].granted) == (30 * DOLLAR, 50 * DOLLAR)


def test_c5_what_fails_is_asked_for_again_behind_the_cool_down_up_to_the_limit(fold: Fold) -> None:
    fold.command("set_top_up", threshold="20", amount="50", currency="USD", cooldown_s=600, attempts=2)
    for number, at in ((1, START), (2, START + 600 * SECOND)):
        fold.tick(at)
        assert [row[2] for row in fold.told()] == list(range(1, number + 1))
        assert fold.command("answer_top_up", request=list(fold.oracle.alerts)[-1], paid=False) == "applied"
    fold.tick(START + 5 * HOUR)
    assert len(fold.told()) == 2


# ------------------------------------------------------------------------------------------------------ usage records


def without(field: str) -> bytes:
    return cloud_event(**{field: None})


def data(**fields: Any) -> dict[str, Any]:
    return {"model": "atlas", "input_tokens": 1, "output_tokens": 1} | fields


@pytest.mark.parametrize(
    ("outcome", "value"),
    [
        ("dead_lettered.too_large", b" " * 65_537),
        ("dead_lettered.malformed", None),
        ("dead_lettered.malformed", b""),
        ("dead_lettered.malformed", b"{"),
        ("dead_lettered.malformed", b"[]"),
        ("dead_lettered.malformed", b"\xff\xfe{}"),
        ("dead_lettered.malformed", cloud_event().decode().encode("utf-16")),
        ("dead_lettered.malformed", b"[" * 60_000),
        ("dead_lettered.malformed", cloud_event(specversion="0.3")),
        ("dead_lettered.malformed", cloud_event(specversion=1.0)),
        ("dead_lettered.malformed", without("id")),
        ("dead_lettered.malformed", cloud_event(id="")),
        ("dead_lettered.malformed", cloud_event(id=7)),
        ("dead_lettered.malformed", cloud_event(id="a\0b")),
        ("dead_lettered.malformed", cloud_event(id="a" * 257)),
        ("dead_lettered.malformed", cloud_event(id="\ud800")),
        ("dead_lettered.malformed", without("source")),
        ("dead_lettered.malformed", cloud_event(type="")),
        ("dead_lettered.malformed", without("data")),
        ("dead_lettered.malformed", cloud_event(data=[1])),
        ("dead_lettered.malformed", cloud_event(data=data(**{f"f{n}": 1 for n in range(62)}))),
        ("dead_lettered.malformed", cloud_event(float("nan"))),
        ("dead_lettered.malformed", cloud_event(data=data(note=float("inf")))),
        ("dead_lettered.malformed", cloud_event(time="soon")),
        ("dead_lettered.malformed", cloud_event(time=5)),
        ("dead_lettered.missing_time", cloud_event(time_us=None)),
        ("dead_lettered.too_far_ahead", cloud_event(time_us=START + 300 * SECOND + 1)),
        ("rated", cloud_event(time_us=START + 300 * SECOND)),
        ("dead_lettered.too_old", cloud_event(time_us=START - 35 * DAY + 300 * SECOND - 1)),
        ("rated", cloud_event(time_us=START - 35 * DAY + 300 * SECOND)),
        ("dead_lettered.no_meter", cloud_event(type="gpu.seconds")),
        ("dead_lettered.bad_quantity", cloud_event(data={"model": "atlas", "input_tokens": 1})),
        ("dead_lettered.bad_quantity", cloud_event(-1)),
        ("dead_lettered.bad_quantity", cloud_event(True)),
        ("dead_lettered.bad_quantity", cloud_event("1e3")),
        ("dead_lettered.bad_quantity", cloud_event(10**18)),
        ("dead_lettered.bad_quantity", cloud_event("0.0000000001")),
        ("dead_lettered.bad_quantity", cloud_event(model=7, input_tokens=-1)),
        ("dead_lettered.bad_dimension", cloud_event(model=7, output_tokens=-1)),
        ("dead_lettered.bad_dimension", cloud_event(data={"input_tokens": 1, "output_tokens": 1})),
        ("dead_lettered.bad_dimension", cloud_event(model="")),
        ("dead_lettered.bad_dimension", cloud_event(model="m" * 129)),
        ("dead_lettered.bad_dimension", cloud_event(model="a\0")),
        ("dead_lettered.no_price", cloud_event(model="unheard")),
        ("dead_lettered.no_price", cloud_event(model="unheard", output_tokens=-1)),
        ("rated", cloud_event("5", "0.5")),
        ("rated", cloud_event(data=data(**{f"f{n}": 1 for n in range(61)}))),
        ("rated", cloud_event(id="a" * 256)),
        ("rated", cloud_event(id="\u00fc" * 256)),
    ],
)
def test_usage_record(fold: Fold, outcome: str, value: bytes | None) -> None:
    assert fold.record(b"acme", value) == outcome
    assert len(fold.oracle.rated) == (outcome == "rated")


@pytest.mark.parametrize("key", [b"", b"a" * 257, b"\xff", b"\xed\xa0\x80"])
def test_a_key_that_names_no_account(fold: Fold, key: bytes) -> None:
    assert fold.record(key, cloud_event(subject="acme")) == "dead_lettered.malformed"


def test_an_exponent_is_refused_as_a_quantity_but_may_stand_elsewhere(fold: Fold) -> None:
    raw = cloud_event(777, data=None).decode()
    template = raw[:-1] + ', "data": {"model": "atlas", "output_tokens": 1, "input_tokens": %s, "note": 1e3}}'
    assert fold.record(b"acme", (template % "1e3").encode()) == "dead_lettered.bad_quantity"
    assert fold.record(b"acme", (template % "1").encode()) == "rated"


def test_an_account_that_is_not_open(fold: Fold) -> None:
    assert fold.use(1, account="nobody") == "dead_lettered.unknown_account"


def test_a_record_of_another_partition_is_forwarded_before_it_is_read() -> None:
    fold = Fold(partitions=2)
    fold.open()
    home = partition_of(b"acme", 2)
    assert fold.record(b"acme", b"not json", 1 - home) == "forwarded"
    assert fold.record(b"acme", b" " * 65_537, 1 - home) == "dead_lettered.too_large"
    assert fold.record(None, cloud_event(subject="acme"), 1 - home) == "forwarded"
    assert fold.record(None, cloud_event(subject="acme"), home) == "rated"
    assert fold.record(None, cloud_event(), home) == "dead_lettered.malformed"
    assert fold.record(None, cloud_event(subject=""), home) == "dead_lettered.malformed"
    assert fold.record(b"acme", cloud_event(subject="other"), home) == "rated"


def test_duplicates_and_conflicts(fold: Fold) -> None:
    first = cloud_event(id="1", data=data(note=5))
    assert fold.record(b"acme", first) == "rated"
    assert fold.record(b"acme", first) == "duplicate"
    reordered = cloud_event(id="1", data={"note": 5.0, **data()}, subject="x")
    assert fold.record(b"acme", reordered) == "duplicate"
    assert fold.record(b"acme", cloud_event(id="1", data=data(note="5"))) == "dead_lettered.id_conflict"
    assert fold.record(b"acme", cloud_event(id="1", data=data(note=True))) == "dead_lettered.id_conflict"
    assert (
        fold.record(b"acme", cloud_event(id="1", data=data(note=5), time_us=START + 1)) == "dead_lettered.id_conflict"
    )
    assert fold.record(b"acme", cloud_event(id="1", source="gateway-2")) == "rated"
    assert fold.told() == [("id_conflict", "gateway-1\n1", 1, "crossed")]


def test_an_identity_is_recorded_only_when_its_event_is_rated(fold: Fold) -> None:
    assert fold.record(b"acme", cloud_event(id="1", model="unheard")) == "dead_lettered.no_price"
    assert fold.record(b"acme", cloud_event(id="1")) == "rated"


def test_an_identity_is_forgotten_35_days_after_its_bucket(fold: Fold) -> None:
    end = (START // (7 * DAY) + 1) * 7 * DAY + 35 * DAY
    fold.use(1, id="1")
    fold.now = end - 1000
    assert fold.use(1, id="1") == "dead_lettered.id_conflict"
    fold.now = end
    assert fold.use(1, id="1") == "rated"


def test_log_time_never_goes_back(fold: Fold) -> None:
    fold.now = START + HOUR
    fold.use(1)
    fold.now = START
    assert fold.use(1, at=START + HOUR) == "rated"


def test_an_account_holds_10000_cells() -> None:
    everything = document()
    everything["plans"]["starter"]["prices"] = {
        name: price | {"where": {}}
        for name, price in document()["plans"]["starter"]["prices"].items()
        if name[0] == "x"
    }
    fold = Fold(everything, paranoid=False)
    fold.open()
    for number in range(4999):
        assert fold.use(1, model=f"model-{number}") == "rated"
    assert fold.use(1, at=START - 20 * DAY) == "rated"  # the same prices, in a segment of their own
    assert fold.use(1, model="one too many") == "dead_lettered.too_many_cells"
    assert fold.use(1, model="model-7") == "rated"


# ---------------------------------------------------------------------------------------------------- control records


def test_a_mac_must_hold(fold: Fold) -> None:
    body = b'{"kind":"tick","epoch":0}'
    good = seal(0, body)
    assert fold.record(None, good) == "tick"
    assert fold.record(b"any key", good) == "tick"
    for forged in (seal(1, body), seal(0, body, b"other"), good[:20], b"TGC1", good + b" ", b"TGC1" + good[5:]):
        assert fold.record(None, forged) == "dead_lettered.bad_mac"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind":"dance"}',
        b'{"kind":"tick"}',
        b'{"kind":"tick","epoch":"1"}',
        b'{"kind":"tick","epoch":1.0}',
        b'{"kind":"tick","epoch":9223372036854775808}',
        b'{"kind":"catalogue","version":2}',
        b'{"kind":"open_account","account":"a","plan":"starter"}',
        b'{"kind":"open_account","account":"","command_key":"k","plan":"starter"}',
        b'{"kind":"tick","epoch":1,"more":1}',
        b'{"kind":"set_cap","account":"acme","command_key":"k","cap":"c","amount":"1","currency":"USD","colour":"red"}',
        b'{"kind":"set_rule","account":"acme","command_key":"k","rule":"r","on":"balance"}',
        b'{"kind":"set_rule","account":"acme","command_key":"k","rule":"r","on":{"measure":"mood"}}',
        b'{"kind":"set_rule","account":"acme","command_key":"k","rule":"r","on":{"measure":"balance","threshold":1}}',
        b'{"kind":"grant","account":"acme","command_key":"k","lot":"l","lot_kind":"paid","amount":1,"currency":"USD"}',
    ],
)
def test_a_body_that_cannot_be_read(fold: Fold, body: bytes) -> None:
    assert fold.control(body) == "dead_lettered.bad_control"


def test_a_tick_of_an_older_epoch_is_void(fold: Fold) -> None:
    assert fold.control({"kind": "owner", "epoch": 3}) == "owner"
    assert fold.control({"kind": "owner", "epoch": 2}) == "owner"
    assert fold.control({"kind": "tick", "epoch": 2}) == "void"
    assert fold.control({"kind": "tick", "epoch": 3}) == "tick"


GRANT = {"kind": "grant", "account": "acme", "lot": "l", "lot_kind": "paid", "amount": "1", "currency": "USD"}
CAP = {"kind": "set_cap", "account": "acme", "cap": "c", "amount": "1", "currency": "USD"}
RULE = {"kind": "set_rule", "account": "acme", "rule": "r"}
SCOPE = {"kind": "set_scope", "account": "acme", "scope": "team:a"}
OVERDRAFT = {"kind": "set_overdraft", "account": "acme", "amount": "1", "currency": "USD"}
LIMIT = {"kind": "set_rate_limit", "account": "acme", "limit": "new", "per_minute": 1}
TOP_UP = {"kind": "set_top_up", "account": "acme", "threshold": "0", "amount": "1", "currency": "USD"}
PERCENT = {"measure": "cap_percent", "cap": "c", "percent": 80}
LOW = {"measure": "balance", "threshold": "1"}
OPEN = {"kind": "open_account", "account": "new", "plan": "starter"}


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        ("account_exists", OPEN | {"account": "acme", "plan": "none"}),
        ("unknown_account", GRANT | {"account": "nobody", "amount": "x"}),
        ("unknown_account", CAP | {"account": "nobody"}),
        ("unknown_account", RULE | {"account": "nobody", "on": LOW | {"threshold": "low"}}),
        ("unknown_plan", OPEN | {"plan": "none", "zone": "Mars/Base", "anchor_day": 0}),
        ("unknown_zone", OPEN | {"zone": "Mars/Base", "anchor_day": 0}),
        ("unknown_zone", OPEN | {"zone": "../UTC"}),
        ("bad_anchor", OPEN | {"anchor_day": 32}),
        ("bad_amount", GRANT | {"amount": "0", "currency": "EUR"}),
        ("bad_amount", GRANT | {"amount": "-1"}),
        ("bad_amount", GRANT | {"amount": "1e3"}),
        ("bad_amount", GRANT | {"amount": "0.0000000000001"}),
        ("bad_amount", CAP | {"amount": "0"}),
        ("bad_amount", RULE | {"on": LOW | {"threshold": "low"}}),
        ("bad_amount", GRANT | {"amount": "0", "lot_kind": "loan"}),
        ("bad_lot", GRANT | {"lot_kind": "loan", "currency": "EUR"}),
        ("currency_mismatch", GRANT | {"currency": "EUR", "lot": "old"}),
        ("currency_mismatch", CAP | {"currency": "EUR"}),
        ("lot_exists", GRANT | {"lot": "old", "scope": ["none"]}),
        ("unknown_price", GRANT | {"scope": ["x_in", "none"], "expires_us": 1}),
        ("expires_too_soon", GRANT | {"expires_us": START}),
        ("expires_too_soon", GRANT | {"expires_us": START + HOUR, "effective_us": START + HOUR}),
        ("expires_too_soon", GRANT | {"expires_us": START + 60 * SECOND + 1, "effective_us": START - DAY}),
        ("unknown_cap", RULE | {"on": PERCENT | {"cap": "none", "percent": 0}}),
        ("bad_rule", RULE | {"on": PERCENT | {"percent": 0}}),
        ("bad_rule", RULE | {"on": PERCENT | {"percent": 1001}}),
        ("bad_rule", RULE | {"on": PERCENT | {"clear_percent": 81}}),
        ("bad_rule", RULE | {"on": PERCENT | {"clear_percent": 0}}),
        ("bad_rule", RULE | {"on": LOW | {"clear": "0.5"}}),
        ("currency_mismatch", CAP | {"currency": "EUR", "scope": "none"}),
        ("unknown_scope", CAP | {"scope": "none"}),
        ("bad_basis", CAP | {"basis": "net"}),
        ("bad_beyond", CAP | {"beyond": "free"}),
        ("bad_beyond", CAP | {"beyond": "waived", "basis": "due"}),
        ("bad_beyond", CAP | {"beyond": "waived", "scope": "none"}),
        ("bad_basis", CAP | {"basis": "due", "scope": "none"}),
        ("bad_basis", CAP | {"basis": "list", "window": "day"}),
        ("bad_cap", CAP | {"window": "fortnight"}),
        ("bad_cap", CAP | {"window": "rolling", "length_s": 61}),
        ("bad_cap", CAP | {"window": "day", "length_s": 60}),
        ("bad_cap", CAP | {"currency": None, "meter": "input_tokens", "price": "x_in"}),
        ("currency_mismatch", CAP | {"meter": "input_tokens"}),
        ("unknown_price", CAP | {"currency": None, "price": "none", "scope": "none"}),
        ("unknown_meter", CAP | {"currency": None, "meter": "none"}),
        ("bad_scope", SCOPE | {"scope": "none/a b"}),
        ("bad_scope", SCOPE | {"scope": "/".join("abcdefghi")}),
        ("unknown_scope", SCOPE | {"scope": "none/such", "standing": "gone"}),
        ("bad_standing", SCOPE | {"standing": "gone"}),
        ("bad_amount", OVERDRAFT | {"amount": "-1", "currency": "EUR"}),
        ("currency_mismatch", OVERDRAFT | {"amount": None, "currency": "EUR"}),
        ("unknown_scope", LIMIT | {"scope": "none", "per_minute": -1}),
        ("bad_limit", LIMIT | {"per_minute": -1}),
        ("bad_limit", LIMIT | {"per_minute": 1_000_001}),
        ("bad_amount", TOP_UP | {"amount": "0", "currency": "EUR"}),
        ("currency_mismatch", TOP_UP | {"currency": "EUR", "cooldown_s": 1}),
        ("bad_top_up", TOP_UP | {"cooldown_s": 599}),
        ("bad_top_up", TOP_UP | {"attempts": 0}),
        ("bad_top_up", TOP_UP | {"days": 0}),
        ("no_top_up", {"kind": "remove_top_up", "account": "acme"}),
        ("not_asked", {"kind": "answer_top_up", "account": "acme", "request": "none", "paid": True}),
        ("lot_exists", {"kind": "answer_top_up", "account": "acme", "request": "old", "paid": True}),
    ],
)
def test_refusals(fold: Fold, reason: str, body: dict[str, Any]) -> None:
    fold.grant("old", "1")
    fold.command("set_cap", cap="c", amount="1", currency="USD")
    fold.use(1, at=START + 60 * SECOND)
    before = fold.account()
    assert fold.control(body | {"command_key": "once"}) == f"refused.{reason}"
    assert fold.control(body | {"command_key": "once"}) == "repeated"
    other = json.dumps(body | {"command_key": "once"}).encode() + b" "
    assert fold.control(other) == "refused.key_reused"
    assert fold.account() == before
    assert "new" not in fold.oracle.accounts


# ----------------------------------------------------------------------------------------- scopes, holds and slices


def token(account: str = "acme", admitted_us: int = START, key: bytes = KEY, version: int = 1) -> str:
    """A hold's token: 16 bytes of MAC, then the hold as a JSON list."""
    hold = [account, "", 0, 1, 7, admitted_us, 1, *[admitted_us + DAY] * 3, [[5, ["x_in"], ["x_in"]]]]
    body = json.dumps([version, hold]).encode()
    mac = hmac.new(key, b"tallygate hold\0" + body, hashlib.sha256).digest()[:16]
    return base64.urlsafe_b64encode(mac + body).rstrip(b"=").decode()


def test_usage_counts_toward_every_declared_scope_above_it(fold: Fold) -> None:
    for scope in ("team:a", "team:a/ann", "team:ab"):
        assert fold.command("set_scope", scope=scope) == "applied"
    fold.use(3, model="x", scope="team:a/ann")
    fold.use(4, model="x", scope="team:a/bob")
    fold.use(5, model="x", scope="team:b")
    fold.use(6, model="x")
    march = instant("2024-03-01T00:00:00")
    assert fold.account().scopes == {"team:a": {march: 7 * DOLLAR}, "team:a/ann": {march: 3 * DOLLAR}, "team:ab": {}}


def test_a_rule_on_a_scopes_cap_crosses_by_the_scopes_spend(fold: Fold) -> None:
    fold.command("set_scope", scope="team:a")
    fold.command("set_cap", cap="team", amount="10", currency="USD", scope="team:a", hard=False)
    fold.rule("half", "cap_percent", cap="team", percent=50)
    fold.use(100, model="x")
    fold.use(4, model="x", scope="team:a")
    assert fold.told() == []
    fold.use(1, model="x", scope="team:a")
    assert fold.told() == [("half", str(instant("2024-03-01T00:00:00")), 1, "crossed")]


def test_held_usage_is_rated_at_its_admission(fold: Fold) -> None:
    fold.grant("promo", "5", "promo", expires_us=START + HOUR)
    fold.tick(START + 2 * HOUR)
    assert fold.use(2, model="x", hold=token(admitted_us=START + HOUR - 1)) == "rated"
    assert (fold.account().lots["promo"].burnt, fold.account().debt) == (2 * DOLLAR, 0)
    assert fold.use(2, model="x", hold=token(admitted_us=START + HOUR)) == "rated"
    assert (fold.account().lots["promo"].burnt, fold.account().debt) == (2 * DOLLAR, 2 * DOLLAR)


@pytest.mark.parametrize(
    "hold", [token("other"), token(key=b"another"), token(version=2), token()[:-4], "bm90IGEgdG9rZW4", "A", "é"]
)
def test_what_is_no_token_for_this_account_is_a_bad_hold(fold: Fold, hold: str) -> None:
    assert fold.use(1, model="x", hold=hold) == "dead_lettered.bad_hold"


def test_bad_hold_is_told_before_the_time_is_looked_at(fold: Fold) -> None:
    assert fold.use(1, model="x", at=START - 60 * DAY, hold="A") == "dead_lettered.bad_hold"
    assert fold.use(1, model="x", at=START - 60 * DAY, hold=token()) == "dead_lettered.too_old"


def test_scope_and_hold_are_billing_fields(fold: Fold) -> None:
    fold.use(1, model="x", id="e", scope="team:a", hold=token())
    assert fold.use(1, model="x", id="e", scope="team:a", hold=token()) == "duplicate"
    for other in ({"scope": "team:b"}, {"hold": token(admitted_us=START + 1)}, {"holdfinal": False}):
        attributes = {"id": "e", "scope": "team:a", "hold": token()} | other
        assert fold.use(1, 0, "x", None, "acme", **attributes) == "dead_lettered.id_conflict"
    fold.use(1, model="x", id="f", holdfinal=False)
    assert fold.use(1, model="x", id="f") == "duplicate"  # without a hold nothing is final


@pytest.mark.parametrize(
    ("outcome", "fields"),
    [
        ("slices", {}),
        ("void", {"epoch": 2}),
        ("slices", {"of": []}),
        ("dead_lettered.bad_control", {"of": [["acme", {"x_in": "0"}]]}),
        ("dead_lettered.bad_control", {"of": [["acme", {"x_in": 1}]]}),
        ("dead_lettered.bad_control", {"of": [["acme"]]}),
        ("dead_lettered.bad_control", {"linger_us": 0}),
        ("dead_lettered.bad_control", {"more": 1}),
    ],
)
def test_slices_move_no_money(fold: Fold, outcome: str, fields: dict[str, Any]) -> None:
    fold.control({"kind": "owner", "epoch": 3})
    body = {"kind": "slices", "epoch": 3, "linger_us": HOUR, "of": [["acme", {"x_in": "5"}], ["nobody", {}]]}
    assert fold.control(body | fields) == outcome
    assert (fold.account().balance, fold.account().debt) == (0, 0)


def test_the_shortest_validity_is_accepted(fold: Fold) -> None:
    fold.use(1, at=START + 60 * SECOND)
    assert fold.grant("l", "1", effective_us=START - DAY, expires_us=START + 60 * SECOND + 2) == "applied"


def test_a_validity_that_is_over_is_refused(fold: Fold) -> None:
    assert fold.grant("l", "1", effective_us=START - DAY, expires_us=START) == "refused.expires_too_soon"


def test_a_command_is_remembered_for_30_days(fold: Fold) -> None:
    body = GRANT | {"command_key": "once"}
    assert fold.control(body) == "applied"
    fold.now = START + 30 * DAY - 1000
    assert fold.control(body) == "repeated"
    fold.now = START + 30 * DAY
    assert fold.control(body) == "refused.lot_exists"


def test_a_reused_key_is_not_remembered(fold: Fold) -> None:
    body = GRANT | {"command_key": "once"}
    fold.control(body)
    assert fold.control(body | {"lot": "m"}) == "refused.key_reused"
    assert fold.control(body) == "repeated"


# ------------------------------------------------------------------------------------------------------------- modes


def random_log(seed: int, events: int, paranoid: bool) -> Fold:
    """Late events, top-ups, scopes, expiries, caps, a price change and a month's end, all seeded."""
    source = random.Random(seed)
    dearer = document(x_in=per_unit("input_tokens", "x", "1.37", "7"))
    fold = Fold(document(), dearer, partitions=2, paranoid=paranoid)
    fold.now = instant("2024-03-31T20:00:00")
    accounts = [f"cus_{number}" for number in range(6)]
    for account in accounts:
        fold.open(account, plan=source.choice(["starter", "growth"]), anchor_day=source.choice([1, 15, 31]))
        fold.command("set_cap", account, cap="c", amount="4000", currency="USD")
        fold.rule("80", "cap_percent", account=account, cap="c", percent=80)
        fold.rule("100", "cap_percent", account=account, cap="c", percent=100)
        fold.rule("low", "balance", account=account, threshold="50", clear="90")
    for partition in (0, 1):
        fold.control({"kind": "catalogue", "version": 2, "effective_us": instant("2024-04-01T01:00:00")}, partition)
    for number in range(events):
        fold.now += source.randrange(0, 2 * 8 * HOUR // events)
        account = source.choice(accounts)
        if source.random() < 0.02:
            fold.grant(
                f"lot-{number}",
                str(source.randrange(1, 900)),
                source.choice(["paid", "paid", "promo"]),
                account,
                priority=source.randrange(3),
                effective_us=fold.now + source.randrange(-3, 3) * HOUR,
                expires_us=source.choice([None, fold.now + source.randrange(1, 5) * HOUR]),
                scope=source.choice([[], [], ["x_in"], ["x_in", "third_in"]]),
            )
            continue
        late = source.choice([0, 0, 0, source.randrange(8 * HOUR), -source.randrange(200 * SECOND)])
        model = source.choice(["atlas", "x", "y", "third"])
        identity = source.randrange(events * 10)
        fold.use(source.randrange(9), source.randrange(3), model, fold.now - late, account, id=f"e{identity}")
    return fold


@pytest.mark.parametrize("seed", [1, 2])
def test_the_quick_mode_equals_deriving_everything_each_time(seed: int) -> None:
    quick, paranoid = random_log(seed, 1500, False), random_log(seed, 1500, True)
    assert quick.oracle.accounts == paranoid.oracle.accounts
    assert quick.oracle.alerts == paranoid.oracle.alerts
    assert quick.oracle.rated == paranoid.oracle.rated
    assert quick.oracle.outcomes == paranoid.oracle.outcomes
    phases = [alert["phase"] for alert in quick.oracle.alerts.values()]
    assert phases.count("crossed") > 12
    assert phases.count("recovered") > 2
    for name, account in quick.oracle.accounts.items():
        charges = sum(
            charge for r in quick.oracle.rated.values() if r.account == name for _, charge in r.prices.values()
        )
        burnt = sum(lot.burnt for lot in account.lots.values())
        assert charges == sum(account.amounts.values()) == sum(account.spend.values()) == burnt + account.debt


def test_the_paranoid_mode_sees_a_quick_table_that_is_wrong(fold: Fold) -> None:
    fold.use(1, 0, "x")
    inner = fold.oracle._partitions[0].accounts["acme"]
    assert inner.table is not None
    inner.table.quantities[(instant("2024-03-01"), "x_in")][instant("2024-03-01")] += 1
    with pytest.raises(AssertionError, match="acme"):
        fold.use(1, 0, "x")


def test_records_must_come_in_order(fold: Fold) -> None:
    with pytest.raises(ValueError, match="feed in order"):
        fold.oracle.feed(0, 0, START // 1000, None, None)


def test_a_marker_of_an_unknown_catalogue_stops_the_oracle(fold: Fold) -> None:
    with pytest.raises(ValueError, match="version 9"):
        fold.control({"kind": "catalogue", "version": 9, "effective_us": START + DAY})


# ------------------------------------------------------------------------------------------------- windows of caps


def percent_told(fold: Fold) -> list[tuple[str, int, str]]:
    return [(alert["window"], alert["ordinal"], alert["phase"]) for alert in fold.oracle.alerts.values()]


def spend(fold: Fold, units: int, at: int) -> None:
    """Dollars, at an instant; the log has come to it by then."""
    fold.now = max(fold.now, at)
    assert fold.use(units, model="x", at=at) == "rated"


def full(fold: Fold, amount: str, **window: Any) -> None:
    """A cap that tells when it is full, and when it is not any more."""
    fold.command("set_cap", **({"cap": "c", "amount": amount, "currency": "USD"} | window))
    fold.command("set_rule", rule="full", on={"measure": "cap_percent", "cap": "c", "percent": 100})


def test_a_rolling_window_lets_go_bucket_by_bucket(fold: Fold) -> None:
    full(fold, "10", window="rolling", length_s=3600)
    spend(fold, 6, START)
    spend(fold, 4, START + 120 * SECOND)
    assert percent_told(fold) == [("rolling", 1, "crossed")]
    fold.tick(START + HOUR + 60 * SECOND - 1000)
    assert percent_told(fold) == [("rolling", 1, "crossed")]
    fold.tick(START + HOUR + 60 * SECOND)
    assert percent_told(fold)[1:] == [("rolling", 1, "recovered")]
    spend(fold, 6, START + HOUR + 60 * SECOND)
    assert percent_told(fold)[2:] == [("rolling", 2, "crossed")]


def test_the_first_usage_opens_a_window_and_the_next_one_behind_its_end_the_next(fold: Fold) -> None:
    full(fold, "10", window="first_use", length_s=18_000)
    spend(fold, 4, START + HOUR)
    spend(fold, 6, START + 6 * HOUR - 1)
    assert percent_told(fold) == [("first_use", 1, "crossed")]
    spend(fold, 6, START + 6 * HOUR)
    assert percent_told(fold)[1:] == [("first_use", 1, "recovered")]
    assert fold.oracle.state(0).accounts["acme"].caps["c"].counted == {START + 6 * HOUR: 6 * 10**12}


def test_an_hour_takes_late_usage_for_a_day_and_units_are_counted_apart_from_money(fold: Fold) -> None:
    full(fold, "3", window="hour", currency=None, price="x_in")
    first = START - START % HOUR
    spend(fold, 2, first)
    fold.tick(first + 25 * HOUR - 1000)
    spend(fold, 1, first)
    assert percent_told(fold) == [(f"hour:{first}", 1, "crossed")]
    fold.tick(first + 26 * HOUR)
    spend(fold, 3, first + HOUR)
    assert percent_told(fold) == [(f"hour:{first}", 1, "crossed")]
