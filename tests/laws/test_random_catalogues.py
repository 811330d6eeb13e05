"""Every law at once, on catalogues that nobody thought of: both implementations make the same money of the same log."""

import json
import random

import pytest

from tests.engine.bench import DAY, HOUR, MINUTE, Bench
from tests.engine.random_catalogues import OTHER, PLAN, RandomCatalogue
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

FEW, MANY = 60, 1_000  # catalogues
BLOCKS = 20
EVENTS = 100


def rated_at_random(seed: int) -> Bench:
    """Two customers with credit, caps and rules; usage in any order, repeated, cancelled, amended, across two versions."""
    source = random.Random(f"catalogue {seed}")
    catalogue = RandomCatalogue(source, sharing=seed % 5 < 2)
    first, second = catalogue.version(), catalogue.version()
    bench = Bench(first, second)
    accounts = ("acme", "zeta")
    for account in accounts:
        bench.open(account, zone=source.choice(("UTC", "America/New_York")), anchor_day=source.choice((1, 10, 31)))
        scope = source.sample(catalogue.prices(first), 1)
        bench.grant("scoped", source.choice(("1", "30")), account=account, scope=scope)
        bench.grant("promo", "20", "promo", account, expires_us=bench.now + source.randrange(1, 40) * DAY)
        bench.cap(source.choice(("5", "100")), account=account)
        units = {"window": source.choice(("day", "month")), "amount": "40", "currency": None}
        bench.command("set_cap", account, cap="units", meter=source.choice(catalogue.meters()), **units)
        bench.cap_rule(80, account=account, clear_percent=60)
        for basis in ("list", "due"):
            bench.cap(("4", "60")[seed % 2], basis, account, basis=basis)
            bench.cap_rule(50, basis, account, cap=basis)
        if seed % 3:
            bench.cap(("7", "30")[seed % 2], "most", account, beyond="waived")
        bench.balance_rule("3", account=account)
    sent: list[tuple[bytes, bytes]] = []
    for number in range(EVENTS):
        bench.now += source.randrange(1, 12 * HOUR)
        if number == EVENTS // 3:
            bench.publish(2, bench.now + 6 * MINUTE + source.randrange(3 * DAY))
        roll = source.random()
        if roll < 0.05 and sent:
            bench.record(*source.choice(sent))
        elif roll < 0.12 and sent:
            key, original = source.choice(sent)
            amended = None
            if roll > 0.1:
                other = json.loads(catalogue.event(bench, bench.now - source.randrange(DAY)))
                amended = json.dumps(other | {"id": json.loads(original)["id"]}).encode()
            bench.record(key, bench.correction(original, amended))
        elif roll < 0.18:
            price = source.choice(catalogue.prices(first))
            ahead = bench.now + source.randrange(1, 9 * DAY)
            at = source.choice((None, ahead, bench.account(accounts[0]).period_around(ahead)[1]))
            terms = source.choice((catalogue.terms(price), catalogue.terms(price), None))
            bench.agree(price, terms, source.choice(accounts), from_us=at)
        elif roll < 0.2:
            at = source.choice((None, bench.now + source.randrange(20 * DAY)))
            bench.sell(source.choice((PLAN, OTHER)), at, source.choice(accounts))
        elif roll < 0.21:
            at = source.choice((None, bench.now + source.randrange(20 * DAY)))
            bench.pause(at, paused=source.random() < 0.6, account=source.choice(accounts))
        elif roll < 0.22 and number % 3 == 0:
            bench.cap(("9", "20")[number % 2], "most", source.choice(accounts), beyond=("owed", "waived")[seed % 2])
        elif roll < 0.22:
            at = source.choice((None, bench.now + source.randrange(20 * DAY)))
            bench.seats(source.randrange(5), at, account=source.choice(accounts))
        elif roll < 0.23:
            bench.grant(f"lot-{number}", "10", account=source.choice(accounts))
        else:
            late = source.choice((0, 0, source.randrange(34 * DAY)))  # of periods that have closed, too
            key = source.choice(accounts).encode()
            sent.append((key, catalogue.event(bench, bench.now - late)))
            bench.record(*sent[-1])
    return bench


def agrees(seed: int) -> Bench:
    bench = rated_at_random(seed)
    assert_the_same(bench, oracle_of(bench, paranoid=seed % 10 == 0), f"catalogue {seed}")
    assert bench.replay().state_bytes() == bench.partition.state_bytes(), f"catalogue {seed}: the replay"
    return bench


@pytest.mark.parametrize("block", range(6))
def test_engine_and_oracle_agree_on_catalogues_drawn_at_random(block: int) -> None:
    """60 catalogues, 100 records on each: charges, counters, lots, debt, spend, alerts, outcomes; and a replay's bytes."""
    rated = 0
    for seed in range(block * FEW // 6, (block + 1) * FEW // 6):
        rated += agrees(seed).partition.counts.get("rated", 0)
    assert rated > FEW // 6 * EVENTS // 3


@pytest.mark.long
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("block", range(BLOCKS))
def test_engine_and_oracle_agree_on_a_thousand_catalogues(block: int) -> None:
    """100,000 records over 1,000 catalogues; in blocks, which may run side by side (`-n 2`)."""
    first, each = FEW + block * MANY // BLOCKS, MANY // BLOCKS
    rated = sum(agrees(seed).partition.counts.get("rated", 0) for seed in range(first, first + each))
    assert rated > each * EVENTS // 3
