"""An account as it crosses the door: every number as decimal text, spend of the month of log time."""

import orjson
from msgspec.structs import replace

from actors.account_view import account_view, binding_view, payers_view, wallet_view
from actors.door_wire import (
    AsOf,
    BindingView,
    CapView,
    RateLimitView,
    RuleView,
    ScopeView,
    UsageView,
    WalletView,
    WorthView,
)
from engine.admission import Wallet
from engine.catalog import CatalogueDocument
from engine.events import (
    CatalogueMarker,
    Control,
    Grant,
    OnCapPercent,
    OpenAccount,
    SetCap,
    SetOverdraft,
    SetRateLimit,
    SetRule,
    SetScope,
)
from engine.periods import month_around
from engine.reasons import Binding
from engine.units import UnitDefinition
from loadtest.workload import cloud_time
from tests.actors.shard_rig import Process, Rig
from tests.engine.bench import DAY, Bench, document, per_unit, us

PICO = 10**12
AS_OF = AsOf(0, 1, 2, 3, None)
DAY_US = 86_400_000_000
JUNE_2025_US = 1_748_736_000_000_000


async def folded(rig: Rig, *controls: Control) -> Process:
    for control in controls:
        rig.control(0, control)
    process = rig.process()
    await process.join(0)
    process.run()
    await rig.clock.until(lambda: process.stage(0) == "ready", 20)
    return process


def test_money_is_decimal_text() -> None:
    wallet = Wallet("USD", 5 * PICO, 7 * PICO + 1, None)
    assert wallet_view(wallet) == WalletView("USD", "5", "7.000000000001", "-2.000000000001", None)
    assert wallet_view(Wallet("USD", 0, 0, 3 * PICO)).overdraft == "3"


def test_what_remains_of_a_limit_is_money_or_a_count() -> None:
    assert binding_view(Binding("cap", "team:red", "monthly", 5 * PICO, 1_001)) == BindingView(
        "cap", "team:red", "monthly", "5", 2
    )
    assert binding_view(Binding("rate", "", "burst", 5, 0)) == BindingView("rate", "", "burst", "5", 0)
    assert binding_view(Binding("standing", "", "", None, None)) == BindingView("standing", "", "", None, None)


def test_what_credits_are_worth_is_told_beside_them() -> None:
    """100 credits are $1; the figures add up, and a price's is of its exact amount."""
    plain = document(third=per_unit("1", "3", model="third"))
    unit = {"CREDITS": UnitDefinition("USD", "1", "100")}
    bench = Bench(
        CatalogueDocument(plain.meters, {"plan": replace(plain.plans["plan"], currency="CREDITS")}, units=unit)
    )
    bench.currency = "CREDITS"
    bench.open()
    bench.grant("l", "150")
    bench.use(1, "third")
    account = bench.account()
    told = account_view(account, Wallet("CREDITS", 150 * PICO, 50 * PICO + 1, 0), 0, bench.now, AS_OF)
    assert told.worth == WorthView("USD", "1", "100", "1.500000000000", "0.500000000000", "1")
    (usage,) = told.usage
    assert (usage.amount, usage.worth) == ("0.333333333333", "0.003333333333")


async def test_an_account_is_told_in_full(rig: Rig) -> None:
    account_id = rig.account(0)
    controls: list[Control] = [
        CatalogueMarker(1, 0),
        OpenAccount(account_id, "k0", "basic", "Europe/Berlin", 15),
        Grant(account_id, "k1", "later", "promo", "5", "USD", 200, None, rig.clock.wall_us() + DAY_US, ("call",)),
        Grant(account_id, "k2", "first", "paid", "1.5", "USD", 10),
        SetScope(account_id, "k3", "team:red"),
        SetCap(account_id, "k4", "team", "10", "USD", "team:red", False),
        SetCap(account_id, "k5", "all", "4", "USD"),
        SetCap(account_id, "k9", "calls", "5", None, window="rolling", length_s=3_600, meter="calls"),
        SetOverdraft(account_id, "k6", "2.5", "USD"),
        SetRateLimit(account_id, "k7", "burst", scope="team:red", per_minute=60),
        SetRule(account_id, "k8", "half", OnCapPercent("all", 50)),
    ]
    process = await folded(rig, *controls)
    for number in range(2):
        event = orjson.loads(rig.event(account_id, f"e{number}")) | {"scope": "team:red"}
        rig.broker.append("usage", account_id.encode(), orjson.dumps(event))
    event = orjson.loads(rig.event(account_id, "old")) | {"time": cloud_time(JUNE_2025_US - DAY_US)}
    rig.broker.append("usage", account_id.encode(), orjson.dumps(event))
    await rig.clock.until(lambda: process.counts(0).get("rated") == 3, 5)

    fold = process.shard._owned[0].fold
    account, wallet = fold.account(account_id), fold.wallet(account_id, rig.clock.wall_us())
    assert account is not None and wallet is not None
    view = account_view(account, wallet, 4, fold.log_time_us, AS_OF)
    assert (view.zone, view.anchor_day, view.rated, view.open_holds) == ("Europe/Berlin", 15, 3, 4)
    assert view.wallet == WalletView("USD", "3.500000000000", "0", "3.500000000000", "2.500000000000")
    assert [(lot.lot, lot.granted, lot.remaining, lot.scope) for lot in view.lots] == [
        ("first", "1.500000000000", "0", ()),
        ("later", "5", "3.500000000000", ("call",)),
    ]
    month_ends = month_around("Europe/Berlin", 1, fold.log_time_us)[1]
    opened = fold.log_time_us - fold.log_time_us % 60_000_000
    assert view.caps == (
        CapView("all", "", True, "4", "2", "month", None, "", month_ends),
        CapView("calls", "", True, "5", "2", "rolling", 3_600, "calls", opened + 3_660_000_000),
        CapView("team", "team:red", False, "10", "2", "month", None, "", month_ends),
    )
    assert view.scopes == (ScopeView("", "active", "2"), ScopeView("team:red", "active", "2"))
    assert view.rate_limits == (RateLimitView("burst", "team:red", 60),)
    (rule,) = view.rules
    definition: dict[str, str | int | None] = {
        "measure": "cap_percent",
        "cap": "all",
        "percent": 50,
        "clear_percent": 50,
    }
    assert rule == RuleView("half", definition, (str(account.month_of(fold.log_time_us)),))
    before, now = (account.period_of(time_us) for time_us in (JUNE_2025_US - DAY_US, rig.clock.wall_us()))
    assert view.usage == (UsageView(before, "call", (), "1", "1"), UsageView(now, "call", (), "2", "2"))


async def test_a_price_with_several_cells_states_its_amount_once(rig: Rig) -> None:
    meter = {"event_type": "call", "aggregation": "count", "group_by": ["model"]}
    price = {"meter": "calls", "model": "per_unit", "amount": "1"}
    rig.database.catalogues[1] = orjson.dumps(
        {"meters": {"calls": meter}, "plans": {"basic": {"currency": "USD", "prices": {"call": price}}}}
    )
    account_id = rig.open(0)
    process = await folded(rig)
    for number, model in enumerate(("b", "a", "b")):
        event = orjson.loads(rig.event(account_id, f"e{number}")) | {"data": {"model": model}}
        rig.broker.append("usage", account_id.encode(), orjson.dumps(event))
    await rig.clock.until(lambda: process.counts(0).get("rated") == 3, 5)
    fold = process.shard._owned[0].fold
    account, wallet = fold.account(account_id), fold.wallet(account_id, rig.clock.wall_us())
    assert account is not None and wallet is not None
    view = account_view(account, wallet, 0, fold.log_time_us, AS_OF)
    assert [(usage.cell, usage.quantity, usage.amount) for usage in view.usage] == [
        (("a",), "1", "3"),
        (("b",), "2", None),
    ]


def test_who_pays_an_adjustment_is_told_apart_from_the_usage_of_the_segment_it_is_posted_in() -> None:
    """$5 of March that came in April, beside $3 of April; no cap counts it."""
    march, april = (us(f"2026-0{month}-01T00:00:00+00:00") for month in (3, 4))
    bench = Bench()
    bench.open()
    bench.grant("paid", "4")
    bench.cap("100")
    bench.now = april + DAY
    bench.use(3)
    bench.use(5, at=april - 1)
    late = payers_view(bench.account(), bench.now, march, "", AS_OF)
    assert (late.start_us, late.charged, late.lots, late.debt, late.refunded, late.caps) == (
        *(april, {"x": "5"}, (("paid", "paid", "1"),), "4", "0", ()),
    )
    usage = payers_view(bench.account(), bench.now, None, "", AS_OF)
    assert (usage.charged, usage.debt, [cap.cap for cap in usage.caps]) == ({"x": "3"}, "0", ["monthly"])
