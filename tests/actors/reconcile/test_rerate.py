"""R-rerate: the second arithmetic by the worked numbers of engine/README.md, and apart from the engine."""

import ast
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from actors.reconcile import rerate
from actors.reconcile.rerate import (
    PICO,
    LotTerms,
    Prices,
    Rerated,
    Table,
    Terms,
    UnitTerms,
    month_start,
    read,
    read_agreed,
    sample_of,
    shown,
)
from engine.catalog import CommitmentDefinition, FeeDefinition, PriceDefinition, SeatDefinition, document_json
from engine.money import NANO
from engine.periods import month_around
from tests.engine.bench import DAY, DOLLAR, START, Bench, document, graduated, us, versions

DOCUMENTS = {number: orjson.loads(document_json(body)) for number, body in enumerate(versions(), start=1)}
MARCH, APRIL = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")


def test_it_shares_no_code_with_the_engine() -> None:
    tree = ast.parse(Path(rerate.__file__).read_text())
    named = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    named += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    assert not [name for name in named if name.split(".")[0] in ("engine", "actors", "config", "loadtest")]


def lot(name: str, dollars: int, kind: str = "paid", **fields: Any) -> LotTerms:
    terms: dict[str, Any] = {"priority": 100, "effective_us": 0, "expires_us": None, "scope": ()}
    terms |= {"pays_debt": kind == "paid"} | fields
    return LotTerms(name, kind, dollars * DOLLAR, **terms)


def account(*lots: LotTerms, table: Any = None, effective: tuple[int, ...] = (0,), woken_us: int = START) -> Rerated:
    terms = Terms("acme", "plan", "USD", "UTC", 1, woken_us, {each.lot: each for each in lots})
    return Rerated(terms, Prices(DOCUMENTS, list(enumerate(effective, start=1))), table or {}, {}, {})


def line(price: str, quantity: str, amount: str, tiers: list[Any], **changed: Any) -> dict[str, Any]:
    fields = {"offset": 1, "line": 0, "time_us": START, "version": 1, "currency": "USD", "cell": {"model": price}}
    return fields | {"price": price, "quantity": quantity, "amount": amount, "tiers": tiers} | changed


def test_graduated_tiers_charge_what_is_worked_out_in_the_readme() -> None:
    rerated = account()
    assert list(rerated.line(line("tiered", "60", "2400", [[1, "10"], [2, "40"], [3, "10"]]))) == []
    assert list(rerated.line(line("tiered", "40", "2000", [[3, "40"]]))) == []


def test_an_agreed_price_follows_the_plans_and_says_since_when() -> None:
    half = read_agreed(START + 10, {"model": "per_unit", "amount": "0.5"})
    terms = Terms(
        "acme", "plan", "USD", "UTC", 1, START, {}, [(START + 10, "plan", "x", half), (START + 20, "plan", "x", None)]
    )
    rerated = Rerated(terms, Prices(DOCUMENTS, [(1, 0)]), {}, {}, {})
    for at, amount, agreed in ((0, "2", {}), (10, "1", {"agreed_us": START + 10}), (20, "2", {})):
        told = line("x", "2", amount, [[1, "2"]], time_us=START + at, **agreed)
        assert list(rerated.line(told)) == []
    assert sorted(rerated.table) == [month_start("UTC", 1, START), START + 10, START + 20]
    wrong = line("x", "2", "1", [[1, "2"]], time_us=START + 10)
    assert list(rerated.line(wrong)) == [("rated line 0 of offset 1: agreed", str(START + 10), "nothing")]


def test_a_phase_begins_a_period_and_a_short_one_includes_less() -> None:
    """The 20 units that `pro` includes in a month; a day of 31 is left of it."""
    last = us("2026-03-31T00:00:00+00:00")
    terms = Terms("acme", "plan", "USD", "UTC", 1, START, {}, (), [(last, "pro")])
    assert (terms.plan_at(last - 1), terms.plan_at(last)) == ("plan", "pro")
    assert terms.period(last) == (last, Fraction(1, 31))
    assert terms.period(last + DAY) == (last + DAY, Fraction(1))
    rerated = Rerated(terms, Prices(DOCUMENTS, [(1, 0)]), {}, {}, {})
    assert list(rerated.line(line("x", "2", "2", [[1, "2"]], time_us=last - 1))) == []
    included, beyond = "0.645161290", "0.354838710"
    told = line("x", "1", "0.709677420", [[0, included], [1, beyond]], time_us=last)
    assert list(rerated.line(told)) == []


def test_a_third_of_a_pico_rounds_as_in_the_readme() -> None:
    rerated = account()
    for amount in ("0", "0.000000000001", "0"):
        assert list(rerated.line(line("third", "1", amount, [[1, "1"]]))) == []
    (finding,) = rerated.line(line("third", "1", "0.000000000001", [[1, "1"]]))
    assert finding == ("rated line 0 of offset 1: amount", "0.000000000000", "0.000000000001")


def test_every_field_of_a_line_is_tried() -> None:
    wrong = line("tiered", "11", "340", [[1, "11"]], version=2, currency="EUR")
    assert [what.rpartition(": ")[2] for what, _, _ in account().line(wrong)] == ["version", "currency", "tiers"]
    with pytest.raises(KeyError):
        list(account().line(line("unheard", "1", "1", [])))
    with pytest.raises(ValueError, match="no whole number"):
        list(account().line(line("x", "0.0000000001", "1", [])))


def test_a_new_version_inside_a_period_leaves_counters_running() -> None:
    """A1(q1) + A2(q1 + q2) - A2(q1), rounded once: 60 at the first tiers, 10 more in the last tier of the second."""
    rerated = account(effective=(0, START + 1))
    assert list(rerated.line(line("tiered", "60", "2400", [[1, "10"], [2, "40"], [3, "10"]]))) == []
    later = line("tiered", "10", "5", [[2, "10"]], version=2, time_us=START + 1)
    assert list(rerated.line(later)) == []
    late = line("tiered", "5", "197.5", [[3, "5"]])  # what it pushes up stays in the last tier of version 2
    assert [finding[1] for finding in rerated.line(late)] == ["250.000000000000"]


def test_lots_pay_by_scope_then_priority_and_a_paid_one_settles_debt() -> None:
    table = {START: {("x", ("x",)): 30 * 10**9, ("y", ("y",)): 5 * 10**9}}
    narrow = lot("narrow", 10, "promo", scope=("x",), priority=200)
    wide, later = lot("wide", 12), lot("later", 20, effective_us=START + 1)
    paid = account(narrow, wide, later, table=table, woken_us=START + 1).paid()
    # y may be paid by one lot alone, so it goes first: 5 of wide; x takes 7 of wide, 10 of narrow, and owes 13.
    assert paid.burnt == {
        ("wide", MARCH): 12 * DOLLAR,
        ("narrow", MARCH): 10 * DOLLAR,
        ("later", MARCH): 13 * DOLLAR,
    }
    assert (paid.debt, paid.balance) == ({}, 7 * DOLLAR)
    before = account(narrow, wide, later, table=table, woken_us=START).paid()
    assert (before.debt, before.balance) == ({MARCH: 13 * DOLLAR}, -13 * DOLLAR)


def test_what_has_expired_remains_to_nobody() -> None:
    expiring = lot("expiring", 10, expires_us=START + DAY)
    table = {START: {("x", ("x",)): 4 * 10**9}, APRIL: {("x", ("x",)): 1 * 10**9}}
    paid = account(expiring, table=table, woken_us=APRIL).paid()
    assert (paid.burnt, paid.expired, paid.debt) == (
        {("expiring", MARCH): 4 * DOLLAR},
        {"expiring": 6 * DOLLAR},
        {APRIL: DOLLAR},
    )
    assert paid.remaining == {"expiring": 0}


def test_the_end_is_held_against_table_postings_and_balance() -> None:
    rerated = account(lot("first", 10))
    assert list(rerated.line(line("x", "4", "4", [[1, "4"]]))) == []
    table: Table = {MARCH: {("x", ("x",)): 4 * 10**9}}
    posted = {("first", "grant", None): 10 * DOLLAR, ("first", "burn", MARCH): 4 * DOLLAR}
    assert list(rerated.finish(table, {}, posted, 6 * DOLLAR, {})) == []
    table[MARCH]["x", ("x",)] += 1
    posted["first", "burn", MARCH] -= 1
    assert list(rerated.finish(table, {}, posted, 6 * DOLLAR + 1, {})) == [
        (f"quantity of x x in the segment from {MARCH}", "4.000000000", "4.000000001"),
        (f"burn of lot first in the period from {MARCH}", "4.000000000000", "3.999999999999"),
        ("balance", "6.000000000000", "6.000000000001"),
    ]


@given(
    st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo", "Africa/Cairo", "Asia/Beirut", "Pacific/Apia"]),
    st.integers(1, 31),
    st.integers(us("2005-01-01T00:00:00+00:00"), us("2030-01-01T00:00:00+00:00")),
)
def test_months_begin_where_the_engine_s_do(zone: str, anchor: int, time_us: int) -> None:
    """Two ways to the same instants, in zones whose clocks skip midnight or a whole day."""
    start, _ = month_around(zone, anchor, time_us)
    assert month_start(zone, anchor, time_us) == start
    assert month_start(zone, anchor, start) == start


def test_decimal_text_is_read_and_shown_exactly() -> None:
    assert read("-0.000000000001", PICO) == -1
    assert shown(-1, PICO) == "-0.000000000001"
    assert shown(read("12.5", PICO), PICO) == "12.500000000000"


def test_a_sample_does_not_depend_on_the_order_of_the_accounts() -> None:
    names = [f"cus_{number}" for number in range(100)]
    picked = sample_of(names, 0.1, 7)
    random.Random(1).shuffle(names)
    assert (sample_of(names, 0.1, 7), len(picked)) == (picked, 10)
    assert sample_of([], 0.5, 1) == []


def test_money_paid_back_is_void_and_owed_again() -> None:
    """$10 paid, $7 burnt, $8 paid back: the $3 left and $5 of the burnt, which is debt; $2 come back then, and pay of it."""
    changes = ((START + DAY, "void", 8 * DOLLAR), (START + DAY, "refund", 2 * DOLLAR))
    paid = account(
        lot("card", 10, changes=changes), table={START: {("x", ("x",)): 7 * NANO}}, woken_us=START + DAY
    ).paid()
    assert (paid.voided, sum(paid.refunded.values())) == ({"card": 8 * DOLLAR}, 7 * DOLLAR)
    assert (paid.remaining, sum(paid.debt.values())) == ({"card": 0}, 3 * DOLLAR)
    assert sum(paid.burnt.values()) == 9 * DOLLAR


@given(st.integers(0, 10**9))
@settings(max_examples=25, deadline=None)
def test_adjustments_of_closed_periods_are_worked_out_again(seed: int) -> None:
    """Late usage and cancels of a closed March, from before the reading on and behind it: nothing is found; a pico is."""
    draw = random.Random(seed)
    bench = Bench()
    bench.open()
    bench.grant("scoped", "20", "promo", scope=["tiered"], priority=draw.randrange(2))
    bench.grant("promo", "40", "promo", priority=1, expires_us=APRIL)
    bench.grant("paid", "2000", priority=2)
    if draw.random() < 0.6:
        bench.cap(draw.choice(["50", "700"]), beyond="waived")
    sent = [bench.event(draw.randrange(30), draw.choice(["x", "tiered"])) for _ in range(4)]
    late = [bench.event(draw.randrange(30), draw.choice(["x", "tiered", "third"]), APRIL - 1 - n) for n in range(4)]
    records = [*late, *(bench.correction(event) for event in sent[:2])]
    draw.shuffle(records)
    for event in sent:
        bench.record(b"acme", event)
    bench.tick(APRIL + DAY)  # the promotion has ended
    begin = draw.randrange(len(records))
    for record in records[:begin]:
        bench.record(b"acme", record)
    account_of = bench.account()
    lots = {
        each.lot: LotTerms(
            *(each.lot, each.kind, each.granted, each.priority, each.effective_us, each.expires_us),
            *(each.scope, each.settles),
        )
        for each in account_of.lots.values()
    }
    table = {start: dict(row) for start, row in account_of.table.items()}
    late_table = {start: dict(row) for start, row in account_of.late.items()}
    waivers = [(each.from_us, each.cap, each.amount) for each in account_of.waivers]
    terms = Terms("acme", "plan", "USD", "UTC", 1, account_of.woken_us, lots, waivers=waivers)
    rerated = Rerated(terms, Prices(DOCUMENTS, [(1, 0)]), table, late_table, account_of.adjusted)
    del bench.partition.outputs.lines[:]
    for record in records[begin:]:
        bench.record(b"acme", record)
    for _, told in bench.partition.outputs.lines:
        assert list(rerated.line(orjson.loads(told))) == []
    posted = bench.allocation().postings()
    found = {place: pico for place, pico in posted.items() if pico}
    end = (bench.account().table, bench.account().adjusted)
    assert list(rerated.finish(*end, found, bench.balance(), {})) == []
    place, charges = next((place, charges) for place, charges in bench.account().adjusted.items() if charges)
    wrong = {**bench.account().adjusted, place: {name: pico + 1 for name, pico in charges.items()}}
    assert next(what for what, _, _ in rerated.finish(end[0], wrong, found, bench.balance(), {})).startswith(
        "adjustment of "
    )


def test_what_a_closed_period_lacks_to_its_minimum_is_worked_out_again() -> None:
    """$1,000 at least, from 10 April on: posted at the close, and less by what comes late. A pico more is found."""
    catalogue = document(x=PriceDefinition("units", "per_unit", {"model": "x"}, "1", minimum="1000"))
    bench = Bench(catalogue)
    bench.now = opened_us = APRIL + 9 * DAY
    bench.open()
    bench.grant("promo", "2000", "promo", priority=0)
    bench.grant("paid", "650")
    bench.use(300)
    may = APRIL + 30 * DAY
    bench.tick(may + DAY)
    bench.use(50, at=may - 1)
    lots = {
        each.lot: LotTerms(
            *(each.lot, each.kind, each.granted, each.priority, each.effective_us, each.expires_us),
            *(each.scope, each.settles),
        )
        for each in bench.account().lots.values()
    }
    terms = Terms("acme", "plan", "USD", "UTC", 1, bench.account().woken_us, lots, opened_us=opened_us)
    documents = {1: orjson.loads(document_json(catalogue))}
    lines = [orjson.loads(told) for _, told in bench.partition.outputs.lines]
    assert [(line["amount"], line.get("due")) for line in lines[1:]] == [
        ("400", "minimum"),
        ("50", None),
        ("-50", "minimum"),
    ]
    for more, found in ((0, 0), (1, 1)):
        rerated = Rerated(terms, Prices(documents, [(1, 0)]), {}, {}, {})
        said = [line | {"amount": f"400.{more:012d}"} if line["amount"] == "400" else line for line in lines]
        assert len([finding for line in said for finding in rerated.line(line)]) == found
        posted = {place: pico for place, pico in bench.allocation().postings().items() if pico}
        account = bench.account()
        assert list(rerated.finish(account.table, account.adjusted, posted, bench.balance(), {})) == []


def test_a_fee_of_a_short_and_paused_period_is_worked_out_again() -> None:
    """$30 a month, from 10 April on, paused for seven of 21 days: $14. A pico more is found."""
    plan = document().plans["plan"]
    catalogue = replace(document(), plans={"plan": replace(plan, fees={"base": FeeDefinition("30")})})
    bench = Bench(catalogue)
    bench.now = opened_us = APRIL + 9 * DAY
    bench.open()
    bench.pause(APRIL + 12 * DAY)
    bench.pause(APRIL + 19 * DAY, paused=False)
    bench.tick(APRIL + 31 * DAY)
    pauses = [(each.from_us, each.paused) for each in bench.account().contract.pauses]
    account = bench.account()
    terms = Terms("acme", "plan", "USD", "UTC", 1, account.woken_us, {}, opened_us=opened_us, pauses=pauses)
    documents = {1: orjson.loads(document_json(catalogue))}
    (line,) = [orjson.loads(told) for _, told in bench.partition.outputs.lines]
    assert (line["amount"], line["due"]) == ("14", "fee")
    for amount, found in (("14", 0), ("14.000000000001", 1)):
        rerated = Rerated(terms, Prices(documents, [(1, 0)]), {}, {}, {})
        assert len(list(rerated.line(line | {"amount": amount}))) == found
        posted = {place: pico for place, pico in bench.allocation().postings().items() if pico}
        assert list(rerated.finish(account.table, account.adjusted, posted, bench.balance(), {})) == []


def test_what_is_due_in_advance_is_worked_out_again() -> None:
    """A fee of $30 and seats at $3, with another plan from 21 April on, other seats and a pause: as it was known at each
    line's log time. A pico more is found in each."""
    plan = document().plans["plan"]
    sold = replace(plan, fees={"base": FeeDefinition("30", in_advance=True)}, seats={"editor": SeatDefinition("3")})
    catalogue = replace(document(), plans={**document().plans, "plan": sold})
    bench = Bench(catalogue)
    bench.now = opened_us = APRIL
    bench.open()
    bench.seats(2)
    bench.sell("pro", APRIL + 20 * DAY)
    bench.pause(APRIL + 10 * DAY)
    bench.seats(4, APRIL + 5 * DAY)
    bench.pause(APRIL + 15 * DAY, paused=False)
    bench.tick(APRIL + 20 * DAY)
    account = bench.account()
    contract = account.contract
    terms = Terms(
        *("acme", "plan", "USD", "UTC", 1, account.woken_us, {}),
        phases=[(each.from_us, each.plan) for each in contract.phases],
        opened_us=opened_us,
        pauses=[(each.from_us, each.paused) for each in contract.pauses],
        seats=[(each.from_us, each.seat, each.count) for each in contract.seats],
    )
    documents = {1: orjson.loads(document_json(catalogue))}
    lines = [orjson.loads(told) for _, told in bench.partition.outputs.lines]
    assert [(line["due"], line["amount"]) for line in lines] == [
        *(("fee", "30"), ("seat", "6"), ("seat", "5"), ("fee", "-20"), ("seat", "-8"), ("fee", "15"), ("seat", "6")),
        *(("fee", "-10"), ("seat", "-4")),
    ]
    for wrong in (None, *range(len(lines))):
        rerated = Rerated(terms, Prices(documents, [(1, 0)]), {}, {}, {})
        said = [
            line | {"amount": f"{line['amount']}.000000000001"} if number == wrong else line
            for number, line in enumerate(lines)
        ]
        assert len([finding for line in said for finding in rerated.line(line)]) == (wrong is not None)


def test_commitments_are_worked_out_again() -> None:
    """$300 of x from 10 April on are $210, and usage beyond that costs twice; y and third together are committed to $30. A
    pico more is found in each."""
    sold = document(x=PriceDefinition("units", "per_unit", {"model": "x"}, "1", commitment="300", overage="2"))
    plan = replace(sold.plans["plan"], commitments={"both": CommitmentDefinition("30", ("y", "third"))})
    catalogue = replace(sold, plans={"plan": plan})
    bench = Bench(catalogue)
    bench.now = opened_us = APRIL + 9 * DAY
    bench.open()
    bench.use(200)
    bench.use(20)
    bench.use(6, "y")
    may = APRIL + 30 * DAY
    bench.tick(may + DAY)
    bench.use(5, "y", at=may - 1)
    bench.use(100)
    bench.tick(may + 32 * DAY)
    account = bench.account()
    terms = Terms("acme", "plan", "USD", "UTC", 1, account.woken_us, {}, opened_us=opened_us)
    documents = {1: orjson.loads(document_json(catalogue))}
    lines = [orjson.loads(told) for _, told in bench.partition.outputs.lines]
    assert [(line["amount"], line.get("due")) for line in lines] == [
        *(("200", None), ("30", None), ("6", None), ("15", "commitment"), ("5", None), ("-5", "commitment")),
        *(("100", None), ("30", "commitment"), ("200", "commitment")),
    ]
    for wrong in (None, 1, 3, 5, 7, 8):
        rerated = Rerated(terms, Prices(documents, [(1, 0)]), {}, {}, {})
        said = [
            line | {"amount": f"{line['amount']}.000000000001"} if number == wrong else line
            for number, line in enumerate(lines)
        ]
        assert len([finding for line in said for finding in rerated.line(line)]) == (wrong is not None)
        posted = {place: pico for place, pico in bench.allocation().postings().items() if pico}
        assert list(rerated.finish(account.table, account.adjusted, posted, bench.balance(), {})) == []


def test_a_quantity_grant_of_1000_leaves_400_of_1400_units_to_be_priced() -> None:
    """LAWS, golden values. Behind its end nothing is served, and what it took is held against what the account says."""
    pack = UnitTerms("pack", "x", 1000 * NANO, START, APRIL)
    terms = Terms("acme", "plan", "USD", "UTC", 1, START, {}, units=[pack])
    rerated = Rerated(terms, Prices(DOCUMENTS, [(1, 0)]), {}, {}, {})
    assert list(rerated.line(line("x", "3", "3", [[1, "3"]], time_us=START - 1))) == []
    assert list(rerated.line(line("x", "1400", "400", [[1, "400"], [-2, "1000"]]))) == []
    assert list(rerated.line(line("x", "2", "2", [[1, "2"]], time_us=APRIL))) == []
    wrong = list(rerated.line(line("x", "-500", "-500", [[1, "-500"]])))
    assert [what.rpartition(": ")[2] for what, _, _ in wrong] == ["amount", "tiers"]
    found = {what: told for what, *told in rerated.finish(rerated.table, {}, {}, 0, {"pack": 1000 * NANO})}
    assert found["units that quantity grant pack took"] == ["900.000000000", "1000.000000000"]


@given(st.integers(0, 10**9))
@settings(max_examples=25, deadline=None)
def test_what_quantity_grants_served_is_worked_out_again(seed: int) -> None:
    """Behind what is included, with a void, and usage and cancels of a March that is open, or was closed in between:
    nothing is found; that a grant took a nano-unit more is, and so is every line that one served, if it is not known."""
    draw = random.Random(seed)
    catalogue = document(x=replace(graduated(("6", "3"), (None, "1"), model="x"), included=draw.choice(["0", "3"])))
    bench = Bench(catalogue)
    bench.open()
    for number in range(3):
        at = START + draw.randrange(DAY)
        until = draw.choice([at + DAY, APRIL])
        bench.grant_units(f"g{number}", "x", draw.choice(["2", "9.5"]), effective_us=at, expires_us=until)
    events = [
        bench.event(draw.choice([1, 2.5, 7]), "x", START + draw.randrange(day * DAY)) for day in 4 * [1] + 4 * [3]
    ]
    bench.now = START + DAY
    for event in events[:4]:
        bench.record(b"acme", event)
    if draw.random() < 0.5:
        bench.command("void_quantity_grant", grant="g1")
    bench.now = START + 3 * DAY
    if draw.random() < 0.7:
        bench.tick(APRIL + 3 * DAY)
    for event in [bench.correction(events[0]), *events[4:], bench.correction(events[5])]:
        bench.record(b"acme", event)
    account_of = bench.account()
    units = [
        UnitTerms(each.grant, each.price, each.granted, each.effective_us, each.expires_us, each.voided_us)
        for each in account_of.quantity_grants.values()
    ]
    terms = Terms("acme", "plan", "USD", "UTC", 1, account_of.woken_us, {}, units=units)
    prices = Prices({1: orjson.loads(document_json(catalogue))}, [(1, 0)])
    lines = [orjson.loads(told) for _, told in bench.partition.outputs.lines]
    rerated = Rerated(terms, prices, {}, {}, {})
    assert [finding for told in lines for finding in rerated.line(told)] == []
    posted = {place: pico for place, pico in bench.allocation().postings().items() if pico}
    stored = (account_of.table, account_of.adjusted, posted, bench.balance())
    took = account_of.derive().taken
    assert list(rerated.finish(*stored, took)) == []
    (finding,) = rerated.finish(*stored, took | {"g0": took.get("g0", 0) + 1})
    assert finding[0] == "units that quantity grant g0 took"
    unaware = Rerated(replace(terms, units=()), prices, {}, {}, {})
    for told in lines:
        served = any(number == -2 for number, _ in told["tiers"])
        assert not served or list(unaware.line(told))
