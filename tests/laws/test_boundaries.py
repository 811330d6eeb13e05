"""Every law at instants that nobody meets by chance: where something begins or ends, a microsecond beside it, and log time
that stands still while many things happen at it."""

import json
import random
from typing import Any

import pytest

from engine.credit import Place
from engine.manual_lines import Rerating
from engine.partition import Partition
from engine.periods import month_around
from tests.engine.bench import DAY, HOUR, MINUTE, START, Bench, us
from tests.engine.random_catalogues import OTHER, PLAN, RandomCatalogue
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

ACCOUNTS = ("acme", "zeta")
ZONES = ("UTC", "America/New_York", "Australia/Lord_Howe", "Europe/Berlin", "Africa/Cairo")
BEGINNINGS = (  # the last hour of a month, and days on which clocks are set
    START,
    us("2026-03-31T23:00:00+00:00"),
    us("2026-03-29T00:00:00+00:00"),
    us("2026-04-04T14:00:00+00:00"),
    us("2026-10-24T22:00:00+00:00"),
)
STEPS = 160
SEEDS = 4  # of a block


class Edges:
    """A log whose records, events and commands lie on the edges of what is there."""

    def __init__(self, seed: int) -> None:
        self.source = random.Random(f"edges {seed}")
        self.catalogue = RandomCatalogue(self.source, sharing=seed % 3 == 0)
        documents = [self.catalogue.version() for _ in range(3)]
        self.bench = Bench(*documents)
        self.bench.now = self.source.choice(BEGINNINGS)
        self.prices = self.catalogue.prices(documents[0])
        self.sent: list[tuple[bytes, bytes]] = []
        self.versions = 1
        for account in ACCOUNTS:
            zone, anchor_day = self.source.choice(ZONES), self.source.choice((1, 15, 31))
            self.bench.open(account, plan=self.source.choice((PLAN, OTHER)), zone=zone, anchor_day=anchor_day)

    def edges(self) -> list[int]:
        """Instants at which something begins or ends, not too far from now."""
        bench = self.bench
        found = {bench.now, *(effective for _, effective in bench.partition._book.versions)}
        for account in map(bench.account, ACCOUNTS):
            found |= {instant for lot in [*account.lots.values()][-8:] for instant in lot.boundaries}
            found |= {instant for grant in account.quantity_grants.values() for instant in grant.boundaries}
            sold = account.contract
            found |= {each.from_us for each in sold.phases} | {each.from_us for each in sold.pauses}
            found |= {each.from_us for each in sold.agreed} | {each.from_us for each in sold.seats}
            for instant in (bench.now, bench.now - 30 * DAY):
                for start, end in (account.period_around(instant), month_around(account.zone, 1, instant)):
                    found |= {start, end, start + DAY, end + DAY}
            found.add(account.newest_event_us)
        return sorted(instant for instant in found if abs(instant - bench.now) < 70 * DAY)

    def at(self, otherwise: int) -> int:
        """An edge, as near or far as an event may be, or a microsecond or a millisecond beside one."""
        if self.source.random() < 0.3:
            return otherwise
        now = self.bench.now
        edges = [*self.edges(), *[now] * 3, *[now + 5 * MINUTE] * 3, now - 35 * DAY + 5 * MINUTE]
        return self.source.choice(edges) + self.source.choice((0, 0, 0, 0, 1, -1, 1000, -1000))

    def said(self) -> int | None:
        now = self.bench.now
        return self.source.choice((None, self.at(now), self.at(now + self.source.randrange(1, 20 * DAY))))

    def step(self) -> None:
        source, bench = self.source, self.bench
        roll = source.random()
        if roll < 0.1 and (wakes := bench.partition.next_wake_us()) is not None and wakes < bench.now + 40 * DAY:
            bench.now = max(bench.now, -(-wakes // 1000) * 1000)
        elif roll < 0.2:
            ahead = [edge for edge in self.edges() if bench.now <= edge < bench.now + 35 * DAY]
            bench.now = min(source.choice(ahead) for _ in range(3)) // 1000 * 1000
        elif roll < 0.3:
            bench.now += source.randrange(1, 6 * HOUR) // 1000 * 1000
        elif roll < 0.35:  # as a sandbox does: append times stay behind log time, which stands still
            log_time = bench.partition.log_time_us
            ahead = [edge for edge in self.edges() if log_time < edge < log_time + 35 * DAY] or [log_time + DAY]
            bench.control({"kind": "advance", "until_us": source.choice(ahead) + source.choice((0, 0, 1, -1))})
        elif roll < 0.6:
            bench.now = max(bench.now, bench.partition.log_time_us // 1000 * 1000)
        account = source.choice(ACCOUNTS)
        kinds = ["event"] * 40 + ["command"] * 40 + ["correct"] * 13 + ["again", "again", "rerate", "rerate", "version"]
        kind = source.choice(kinds)
        if kind == "event":
            self.sent.append((account.encode(), self.event()))
            bench.record(*self.sent[-1])
        elif kind == "command":
            self.command(account)
        elif kind == "correct" and self.sent:
            self.correct()
        elif kind == "again" and self.sent:
            bench.record(*source.choice(self.sent))
        elif kind == "rerate":
            asked = Rerating(source.choice((1, 2)), source.choice((0, self.at(bench.now))), 1 << 60)
            bench.rerate(source.choice(self.prices), asked, f"rerate-{len(bench.log)}", account)
        elif kind == "version" and self.versions < len(bench.library):
            self.versions += 1
            bench.publish(self.versions, self.at(bench.now + 6 * MINUTE + source.randrange(3 * DAY)))

    def event(self) -> bytes:
        late = self.source.choice((0, 0, 0, 0, self.source.randrange(34 * DAY)))
        return self.catalogue.event(self.bench, self.at(self.bench.now - late))

    def correct(self) -> None:
        source = self.source
        key, original = source.choice(self.sent[-30:])
        amended = None
        if source.random() < 0.6:
            other, before = json.loads(self.event()), json.loads(original)
            kept = source.choice((("id",), ("id", "type", "data"), ("id", "time")))
            amended = json.dumps(other | {name: before[name] for name in kept}).encode()
        self.bench.record(key, self.bench.correction(original, amended, source.choice((0, 0, 0, 1))))

    def command(self, account: str) -> str:
        source, bench, said = self.source, self.bench, self.said
        price, some = source.choice(self.prices), source.choice(("1", "0.000000000007", "20", "3.5"))
        lot = source.choice([*bench.account(account).lots, "unheard"])
        every: dict[str, Any] = {"every": source.choice(("period", "month", "week")), "days": source.choice((None, 2))}
        rollover = source.choice((None, None, {"percent": source.choice((33, 100)), "days": source.choice((1, 30))}))
        match source.randrange(18):
            case 0 | 1:
                scope, kind = source.choice(([], [], [price])), source.choice(("paid", "promo"))
                lives: dict[str, Any] = {"effective_us": said(), "expires_us": said(), "rollover": rollover}
                name, priority = f"lot-{source.randrange(30)}", source.randrange(3)
                return bench.grant(name, some, kind, account, priority=priority, scope=scope, **lives)
            case 2:
                return bench.void(lot, source.choice((None, some)), account)
            case 3:
                return bench.refund(lot, some, account)
            case 4:
                amount = source.choice(("3", "-2.5", "-60", "0.000000000001"))
                return bench.adjust(f"line-{len(bench.log)}", amount, account=account, used_us=said(), price=price)
            case 5:
                return bench.cap(some, "most", account, beyond=source.choice(("waived", "waived", "owed")), hard=False)
            case 6:
                return bench.command("remove_cap", account, cap="most")
            case 7 | 8:
                terms = source.choice((None, self.catalogue.terms(price), self.catalogue.terms(price)))
                return bench.agree(price, terms, account, from_us=said())
            case 9:
                return bench.sell(source.choice((PLAN, OTHER)), said(), account)
            case 10 | 11:
                return bench.pause(said(), paused=source.random() < 0.5, account=account)
            case 12:
                return bench.seats(source.randrange(4), said(), account=account)
            case 13:
                pays = source.random() < 0.4
                return bench.recurring(source.choice("ab"), some, account, pays_debt=pays, rollover=rollover, **every)
            case 14:
                expires_us = source.choice((None, said()))
                units = f"units-{source.randrange(20)}"
                return bench.grant_units(units, price, "11.5", account, effective_us=said(), expires_us=expires_us)
            case 15:
                return bench.command("void_quantity_grant", account, grant=f"units-{source.randrange(20)}")
            case 16:
                billing = source.choice(("postpaid", "prepaid"))
                return bench.command("set_billing", account, billing=billing, currency="USD")
        if source.random() < 0.5 and (asked := bench.requests(account)):
            return bench.answer(asked[-1], paid=source.random() < 0.6, account=account)
        window = source.choice(("hour", "day", "week"))
        source.choice(
            (
                lambda: bench.top_up(source.choice(("2", "-5")), "4", account, cooldown_s=600),
                lambda: bench.balance_rule(source.choice(("1", "-3")), account=account),
                lambda: bench.rule("ends", "expiring", account, threshold="1", within_s=source.choice((60, 86_400))),
                lambda: bench.rule("spent", "spend", account, threshold="2", window=window),
                lambda: bench.rule("spike", "spike", account, percent=150, minimum="1", bucket_s=3600),
            )
        )()
        return ""


def frozen_and_thawed(bench: Bench) -> tuple[Partition, dict[str, dict[Place, int]]]:
    """The log, where every account is bytes between any two records; and what its checkpoints have posted, by account."""
    partition = bench.fresh()
    ledgers: dict[str, dict[Place, int]] = {account: {} for account in ACCOUNTS}
    for record in bench.log:
        partition.apply(*record)
        cut = partition.begin_cut()
        assert cut.encode(len(ACCOUNTS))
        partition.end_cut()
        partition.freeze_idle(0, len(ACCOUNTS))
        for row in cut.postings:
            place = row.lot, row.kind, row.usage_period_us
            ledgers[row.account][place] = ledgers[row.account].get(place, 0) + row.amount
    return partition, ledgers


@pytest.mark.parametrize("block", range(4))
def test_engine_and_oracle_agree_where_everything_begins_or_ends_at_once(block: int) -> None:
    """Charges, lots, debt, alerts and outcomes; nothing is waited for that has passed; and accounts that are frozen between
    any two records come to the same bytes, lines and alerts."""
    rated = 0
    for seed in range(block * SEEDS, (block + 1) * SEEDS):
        log = Edges(seed)
        bench = log.bench
        for _ in range(STEPS):
            log.step()
            wakes = bench.partition.next_wake_us()
            assert wakes is None or wakes > bench.partition.log_time_us, f"seed {seed}, record {len(bench.log)}"
        assert "dead_lettered.engine_error" not in bench.partition.counts, f"seed {seed}: {bench.letter().detail}"
        assert_the_same(bench, oracle_of(bench), f"seed {seed}")
        thawed, ledgers = frozen_and_thawed(bench)
        assert thawed.state_bytes() == bench.partition.state_bytes(), f"seed {seed}"
        assert thawed.outputs.lines == bench.partition.outputs.lines, f"seed {seed}"
        assert thawed.outputs.alerts == bench.partition.outputs.alerts, f"seed {seed}"
        for name, ledger in ledgers.items():
            account = bench.account(name)
            owed = account.derive().allocation.postings(account.billed_us)
            assert {place: pico for place, pico in ledger.items() if pico} == {
                place: pico for place, pico in owed.items() if pico
            }, f"seed {seed}: the ledger of {name}"
        rated += bench.partition.counts.get("rated", 0)
    assert rated > SEEDS * STEPS // 5
