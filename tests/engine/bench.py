"""A partition, and the log that it folds, written record by record; and a store of its checkpoints.

Money in here is told in dollars, except that `third` costs 1 pico per 3 units: it shows every rounding.
"""

import json
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from engine.account import Account
from engine.alerts import Crossing
from engine.catalog import (
    Catalogue,
    CatalogueDocument,
    MeterDefinition,
    PlanDefinition,
    PriceDefinition,
    StreamDefinition,
    TierDefinition,
    compile_catalogue,
)
from engine.commands import Refused
from engine.corrections import AMEND, CANCEL
from engine.credit import Allocation
from engine.cut import Cut
from engine.events import seal
from engine.holds import VALID_GAP_US, Bound, Hold, seal_token
from engine.manual_lines import Rerating
from engine.money import NANO, amount_text, quantity_text
from engine.outcomes import AccountRow, AlertRow, CommandRow, DeadLetterRow, DedupSegment, PostingRow
from engine.partition import Partition
from engine.periods import EPOCH, MICROSECOND
from engine.placement import partition_for
from engine.prices.curve import Rung
from engine.prices.models import compile_price
from engine.prices.modifiers import Modifiers
from engine.prices.price import Price
from engine.rerating import differences

KEY: Final = b"control key of the tests"
TOPIC: Final = "usage"
SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
DOLLAR: Final = 10**12


def us(text: str) -> int:
    """Microseconds of an ISO time that states its offset."""
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


START: Final = us("2026-03-10T12:00:00+00:00")


# ------------------------------------------------------------------------------------------------------- catalogues

METERS: Final = {
    "calls": MeterDefinition("llm.request", "count"),
    "tokens": MeterDefinition("llm.request", "sum", "tokens", ("model",)),
    "units": MeterDefinition("use", "sum", "units", ("model",)),
}


def per_unit(amount: str, per: str = "1", meter: str = "units", **where: str) -> PriceDefinition:
    return PriceDefinition(meter, "per_unit", where, amount, per)


def graduated(*tiers: tuple[str | None, str], per: str = "1", meter: str = "units", **where: str) -> PriceDefinition:
    rows = tuple(TierDefinition(amount, per, up_to) for up_to, amount in tiers)
    return PriceDefinition(meter, "graduated", where, tiers=rows)


def priced(
    tiers: Iterable[tuple[int | None, int, int]],
    name: str = "p",
    model: str = "graduated",
    fees: Iterable[int] = (),
    modifiers: Modifiers = Modifiers(),  # noqa: B008
) -> Price:
    """A compiled price of tiers (up to, amount in pico, per), and what is due on entering each."""
    due = [*fees, *[0] * 100]
    rungs = [Rung(up_to, amount, per, due[place]) for place, (up_to, amount, per) in enumerate(tiers)]
    return compile_price(name, "m", {}, model, rungs, modifiers)


def document(**changed: PriceDefinition | None) -> CatalogueDocument:
    """Plan `plan`: x and y cost $1 a unit, `tiered` $30 up to 10, $40 up to 50, $50 beyond; `third` rounds.

    A price given as None is not sold. Plan `pro` is the same, but that 20 units of x are included in each period and the
    others cost $2; plan `calls`, in euros, sells nothing but calls."""
    prices: dict[str, PriceDefinition | None] = {
        "x": per_unit("1", model="x"),
        "y": per_unit("1", model="y"),
        "tiered": graduated(("10", "30"), ("50", "40"), (None, "50"), model="tiered"),
        "third": per_unit("0.000000000001", "3", model="third"),
        "calls": per_unit("0.25", meter="calls"),
        "tokens": graduated(("1000", "0.002"), (None, "0.001"), meter="tokens"),
    }
    sold = {name: price for name, price in (prices | changed).items() if price is not None}
    calls = {name: per_unit("0", meter=name) for name in ("calls", "tokens")}
    pro = sold | (
        {"x": PriceDefinition("units", "per_unit", {"model": "x"}, "2", included="20")} if "x" in sold else {}
    )
    plans = {
        "plan": PlanDefinition("USD", sold),
        "calls": PlanDefinition("EUR", calls),
        "pro": PlanDefinition("USD", pro),
    }
    return CatalogueDocument(METERS, plans)


def kept_open(catalogue: CatalogueDocument, days: int) -> CatalogueDocument:
    """The same, with periods that stay open so long once they have ended."""
    plans = {name: replace(plan, close_after_s=days * 86_400) for name, plan in catalogue.plans.items()}
    return replace(catalogue, plans=plans)


# ------------------------------------------------------------------------------------------------------------ events


def cloud_time(time_us: int) -> str:
    return (EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def cloud_event(event_id: str, time_us: int | None, **attributes: object) -> bytes:
    """A usage event; `attributes` replace its own, and None takes one away."""
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": event_id,
        "source": "gateway-1",
        "type": "use",
        "time": None if time_us is None else cloud_time(time_us),
    }
    return json.dumps({name: value for name, value in (event | attributes).items() if value is not None}).encode()


class Record(NamedTuple):
    offset: int
    append_ms: int
    key: bytes | None
    value: bytes | None


# ------------------------------------------------------------------------------------------------------------- bench


class Bench:
    """Writes a log at `now` and folds it at once. Every call returns the outcome, as the partition counts it."""

    def __init__(self, *documents: CatalogueDocument, partitions: int = 1, number: int = 0) -> None:
        self.documents = dict(enumerate(documents or (document(),), start=1))
        self.currency = "USD"
        self.library: dict[int, Catalogue] = {
            version: compile_catalogue(version, body) for version, body in self.documents.items()
        }
        self.partitions = partitions
        self.number = number
        self.log: list[Record] = []
        self.now = START
        self.partition = self.fresh()
        self._names = 0
        self.control({"kind": "catalogue", "version": 1, "effective_us": START})

    def fresh(self) -> Partition:
        """The same partition before its first record."""
        return Partition(self.number, self.partitions, TOPIC, KEY, self.library)

    def replay(self) -> Partition:
        """The log, folded anew in one go."""
        partition = self.fresh()
        for record in self.log:
            partition.apply(*record)
        return partition

    def record(self, key: bytes | None, value: bytes | None) -> str:
        record = Record(len(self.log), self.now // 1000, key, value)
        before = dict(self.partition.counts)
        self.partition.apply(*record)
        self.log.append(record)
        changed = [name for name, count in self.partition.counts.items() if count != before.get(name, 0)]
        (outcome,) = [name for name in changed if not name.startswith("alert_")]
        return outcome

    def sealed(self, body: dict[str, Any] | bytes) -> bytes:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return seal(KEY, TOPIC, self.number, raw)

    def control(self, body: dict[str, Any] | bytes) -> str:
        return self.record(None, self.sealed(body))

    def command(self, kind: str, account: str = "acme", **fields: Any) -> str:
        self._names += 1
        return self.control({"kind": kind, "account": account, "command_key": f"key-{self._names}"} | fields)

    def open(self, account: str = "acme", **fields: Any) -> str:
        return self.command("open_account", account, **({"plan": "plan"} | fields))

    def grant(self, lot: str, dollars: str, kind: str = "paid", account: str = "acme", **fields: Any) -> str:
        body = {"lot": lot, "lot_kind": kind, "amount": dollars, "currency": self.currency}
        return self.command("grant", account, **(body | fields))

    def void(self, lot: str, dollars: str | None = None, account: str = "acme", **fields: Any) -> str:
        body = {"lot": lot, "currency": self.currency} | ({} if dollars is None else {"amount": dollars})
        return self.command("void_lot", account, **(body | fields))

    def refund(self, lot: str, dollars: str, account: str = "acme", **fields: Any) -> str:
        return self.command(
            "refund_lot", account, **({"lot": lot, "amount": dollars, "currency": self.currency} | fields)
        )

    def adjust(self, line: str, dollars: str, reason: str = "because", account: str = "acme", **fields: Any) -> str:
        body = {"line": line, "amount": dollars, "currency": self.currency, "reason": reason, "by": "ann"}
        return self.command("adjust", account, **(body | fields))

    def differences(self, price: str, asked: Rerating, account: str = "acme") -> list[tuple[int, str]]:
        """What a dry run says as of now: start of the period, amount. Raises Refused."""
        found = differences(self.account(account), price, asked, self.partition._book, self.now)
        return [(each.period_us, amount_text(each.amount)) for each in found if each.amount]

    def rerate(self, price: str, asked: Rerating, rerate: str = "r", account: str = "acme", **fields: Any) -> str:
        """Post what a dry run says, or nothing where it refuses."""
        try:
            stated = self.differences(price, asked, account)
        except Refused:
            stated = []
        body = {"rerate": rerate, "price": price, "version": asked.version, "from_us": asked.from_us}
        body |= {
            "to_us": asked.to_us,
            "currency": self.currency,
            "differences": stated,
            "reason": "a wrong price",
            "by": "ann",
        }
        return self.command("rerate", account, **(body | fields))

    def cap(self, dollars: str, cap: str = "monthly", account: str = "acme", **fields: Any) -> str:
        return self.command("set_cap", account, **({"cap": cap, "amount": dollars, "currency": self.currency} | fields))

    def cap_rule(self, percent: int, rule: str | None = None, account: str = "acme", **on: Any) -> str:
        body = {"measure": "cap_percent", "cap": "monthly", "percent": percent}
        return self.command("set_rule", account, rule=rule or f"cap-{percent}", on=body | on)

    def balance_rule(self, threshold: str, rule: str = "low", account: str = "acme", **on: Any) -> str:
        return self.command("set_rule", account, rule=rule, on={"measure": "balance", "threshold": threshold} | on)

    def sell(self, plan: str, from_us: int | None = None, account: str = "acme") -> str:
        """Another plan from an instant on."""
        return self.command("set_plan", account, plan=plan, from_us=from_us)

    def pause(self, from_us: int | None = None, *, paused: bool = True, account: str = "acme") -> str:
        """No checks from an instant on, or checks again."""
        return self.command("set_pause", account, paused=paused, from_us=from_us)

    def seats(self, count: int, from_us: int | None = None, seat: str = "editor", account: str = "acme") -> str:
        """So many seats from an instant on."""
        return self.command("set_seats", account, seat=seat, count=count, from_us=from_us)

    def agree(self, price: str, terms: dict[str, Any] | None, account: str = "acme", **fields: Any) -> str:
        body = {"price": price, "terms": terms, "currency": self.currency}
        return self.command("set_price", account, **(body | fields))

    def recurring(self, name: str, dollars: str, account: str = "acme", **fields: Any) -> str:
        body = {"grant": name, "every": "period", "lot_kind": "promo", "amount": dollars, "currency": self.currency}
        return self.command("set_recurring_grant", account, **(body | fields))

    def grant_units(self, name: str, price: str, quantity: str, account: str = "acme", **fields: Any) -> str:
        return self.command("grant_quantity", account, grant=name, price=price, quantity=quantity, **fields)

    def top_up(self, threshold: str, amount: str, account: str = "acme", **fields: Any) -> str:
        body = {"threshold": threshold, "amount": amount, "currency": self.currency}
        return self.command("set_top_up", account, **(body | fields))

    def answer(self, request: str, *, paid: bool, account: str = "acme") -> str:
        return self.command("answer_top_up", account, request=request, paid=paid)

    def requests(self, account: str = "acme") -> list[str]:
        """The ids of the requests for credit that were told so far."""
        told = [row.alert_id for row in self.partition.outputs.alerts if row.account == account]
        return [name for name in told if name.startswith("topup_")]

    def rule(self, name: str, measure: str, account: str = "acme", level: str = "warning", **on: Any) -> str:
        return self.command("set_rule", account, rule=name, on={"measure": measure} | on, level=level)

    def publish(self, version: int, effective_us: int) -> str:
        return self.control({"kind": "catalogue", "version": version, "effective_us": effective_us})

    def scope(self, scope: str, account: str = "acme", standing: str = "active") -> str:
        return self.command("set_scope", account, scope=scope, standing=standing)

    def slices(self, epoch: int, of: dict[str, dict[str, int]], linger_us: int = 10 * MINUTE) -> str:
        """Put slices into the log: nano-units per price and account."""
        rows = [(name, {price: quantity_text(units) for price, units in row.items()}) for name, row in of.items()]
        return self.control({"kind": "slices", "epoch": epoch, "linger_us": linger_us, "of": rows})

    def owner(self, epoch: int) -> str:
        return self.control({"kind": "owner", "epoch": epoch})

    def hold(
        self,
        *bounds: Bound,
        number: int = 1,
        epoch: int = 1,
        account: str = "acme",
        scope: str = "",
        at: int | None = None,
        ttl_us: int = MINUTE,
        delay_us: int = MINUTE,
    ) -> Hold:
        """A hold as an owner would have admitted it, now unless `at` says otherwise."""
        admitted = self.now if at is None else at
        expires = admitted + ttl_us + VALID_GAP_US
        times = (admitted, 1, admitted + ttl_us, expires, expires + delay_us)
        return Hold(account, scope, self.number, epoch, number, *times, bounds)

    def spend_held(self, hold: Hold, units: object, model: object = "x", *, final: bool = True, **more: Any) -> str:
        """Use units under a hold."""
        held: dict[str, Any] = {"hold": seal_token(KEY, hold), "holdfinal": final}
        if hold.scope:
            held["scope"] = hold.scope
        return self.use(units, model, account=hold.account, **(held | more))

    def tick(self, at: int) -> str:
        self.now = at
        return self.control({"kind": "tick", "epoch": self.partition.epoch})

    def event(self, units: object = 1, model: object = "x", at: int | None = None, **attributes: object) -> bytes:
        """A usage event with an id of its own, now unless `at` says otherwise."""
        self._names += 1
        body = {"data": {"model": model, "units": units}} | attributes
        return cloud_event(f"event-{self._names}", self.now if at is None else at, **body)

    def use(
        self, units: object = 1, model: object = "x", at: int | None = None, account: str = "acme", **more: object
    ) -> str:
        return self.record(account.encode(), self.event(units, model, at, **more))

    def correct(
        self, original: bytes, amended: bytes | None = None, revision: int = 0, account: str = "acme", **more: object
    ) -> str:
        """Cancel an event, or amend it, by a record with an id of its own."""
        return self.record(account.encode(), self.correction(original, amended, revision, **more))

    def correction(
        self, original: bytes, amended: bytes | None = None, revision: int = 0, **attributes: object
    ) -> bytes:
        data: dict[str, object] = {"original": json.loads(original)}
        if amended is not None:
            data["amended"] = json.loads(amended)
        if revision:
            data["revision"] = revision
        body = {"type": CANCEL if amended is None else AMEND, "data": data, "time": None}
        return self.event(**body | attributes)  # type: ignore[arg-type]  # units, model and time say nothing here

    # ---- what has come of it

    def account(self, account: str = "acme") -> Account:
        found = self.partition.account(account)
        assert found is not None
        return found

    def allocation(self, account: str = "acme") -> Allocation:
        return self.account(account).derive().allocation

    def balance(self, account: str = "acme") -> int:
        return self.allocation(account).balance

    def debt(self, account: str = "acme") -> int:
        return sum(self.allocation(account).debt.values())

    def charges(self) -> list[int]:
        """Pico of every rated line so far."""
        return [pico_of(json.loads(line)["amount"]) for _, line in self.partition.outputs.lines]

    def told(self) -> list[tuple[str, str, int, str]]:
        """(rule, window, ordinal, phase) of every alert so far."""
        return [told(row) for row in self.partition.outputs.alerts]

    def letter(self) -> DeadLetterRow:
        """The newest dead letter."""
        return self.partition.outputs.dead_letters[-1]


def pico_of(text: str) -> int:
    whole, _, fraction = text.removeprefix("-").partition(".")
    pico = int(whole) * DOLLAR + int(fraction.ljust(12, "0"))
    return -pico if text.startswith("-") else pico


def told(row: AlertRow) -> tuple[str, str, int, str]:
    body = json.loads(row.body)
    data = body["data"]
    return data["rule"], data["window"], data["ordinal"], body["type"].rpartition(".")[2]


def phases(crossings: Iterable[Crossing]) -> list[tuple[str, str, int, str]]:
    return [(crossing.rule, crossing.window, crossing.ordinal, crossing.phase) for crossing in crossings]


# ------------------------------------------------------------------------------------------------------------- store


class Store:
    """What the checkpoints of one partition leave behind, kept as the database keeps it."""

    def __init__(self) -> None:
        self.blob: bytes | None = None
        self.accounts: dict[str, AccountRow] = {}
        self.dedup: list[DedupSegment] = []
        self.commands: list[CommandRow] = []
        self.postings: list[PostingRow] = []
        self.alerts: list[AlertRow] = []
        self.dead_letters: list[DeadLetterRow] = []

    def take(self, cut: Cut) -> None:
        """Write a complete cut."""
        self.blob = cut.blob
        self.accounts |= {row.account: row for row in cut.accounts}
        self.dedup = [segment for segment in self.dedup if segment.bucket >= cut.dedup_bucket_min] + cut.dedup
        self.commands += cut.commands
        self.postings += cut.postings
        self.alerts += cut.alerts
        self.dead_letters += cut.dead_letters

    def checkpoint(self, partition: Partition, accounts_max: int = 1_000_000) -> None:
        cut = partition.begin_cut()
        while not cut.encode(accounts_max):
            pass
        partition.end_cut()
        self.take(cut)

    def load_into(self, partition: Partition) -> Partition:
        partition.load(self.blob, self.accounts.values(), self.dedup, self.commands)
        return partition


# ------------------------------------------------------------------------------------------------------- random logs

Malform = Callable[[Bench, bytes], tuple[bytes | None, bytes | None]]

MALFORMED: Final[dict[str, Malform]] = {
    "no value": lambda bench, key: (key, None),
    "not JSON": lambda bench, key: (key, b"{"),
    "too large": lambda bench, key: (key, bench.event(note="n" * 65_536)),
    "key is not UTF-8": lambda bench, key: (b"\xff", bench.event()),
    "empty key": lambda bench, key: (b"", bench.event()),
    "no id": lambda bench, key: (key, bench.event(id=None)),
    "NUL in the source": lambda bench, key: (key, bench.event(source="a\x00")),
    "old specversion": lambda bench, key: (key, bench.event(specversion="0.3")),
    "data is a list": lambda bench, key: (key, bench.event(data=[])),
    "time without an offset": lambda bench, key: (key, bench.event(time="2026-03-10T12:00:00")),
    "neither key nor subject": lambda bench, key: (None, bench.event()),
    "no time": lambda bench, key: (key, bench.event(time=None)),
    "far ahead": lambda bench, key: (key, bench.event(at=bench.now + 6 * MINUTE)),
    "too old": lambda bench, key: (key, bench.event(at=bench.now - 35 * DAY)),
    "nobody's": lambda bench, key: (b"nobody", bench.event()),
    "no meter": lambda bench, key: (key, bench.event(type="refund")),
    "no units": lambda bench, key: (key, bench.event(data={"model": "x"})),
    "negative units": lambda bench, key: (key, bench.event("-1")),
    "no model": lambda bench, key: (key, bench.event(data={"units": 1})),
    "model is a number": lambda bench, key: (key, bench.event(model=7)),
    "hold is no token": lambda bench, key: (key, bench.event(hold="bm90IGEgdG9rZW4")),
    "hold is empty": lambda bench, key: (key, bench.event(hold="")),
    "hold of another account": lambda bench, key: (
        key,
        bench.event(hold=seal_token(KEY, bench.hold(account="someone else"))),
    ),
    "scope with a space": lambda bench, key: (key, bench.event(scope="team a")),
    "scope too deep": lambda bench, key: (key, bench.event(scope="/".join("abcdefghi"))),
    "holdfinal is a word": lambda bench, key: (key, bench.event(holdfinal="yes")),
    "slices without a limit": lambda bench, key: (
        key,
        bench.sealed({"kind": "slices", "epoch": 99, "linger_us": 0, "of": []}),
    ),
    "slices of nothing": lambda bench, key: (
        key,
        bench.sealed({"kind": "slices", "epoch": 99, "linger_us": 1, "of": [["cus_1", {"x": "0"}]]}),
    ),
    "correction of nothing": lambda bench, key: (key, bench.event(type=CANCEL)),
    "correction of a correction": lambda bench, key: (key, bench.correction(bench.correction(bench.event()))),
    "correction of no event": lambda bench, key: (key, bench.correction(b"{}")),
    "correction of another account": lambda bench, key: (key, bench.correction(bench.event(subject="someone else"))),
    "amended to nobody's price": lambda bench, key: (
        key,
        bench.correction(event := bench.event(), json.dumps(json.loads(event) | {"type": "refund"}).encode()),
    ),
    "revision below 0": lambda bench, key: (key, bench.correction(bench.event(), None, -1)),
    "unheard of": lambda bench, key: (key, bench.event(model="unheard")),
    "forged": lambda bench, key: (key, seal(b"other", TOPIC, bench.number, b'{"kind":"tick","epoch":0}')),
    "bad control": lambda bench, key: (key, bench.sealed({"kind": "dance"})),
    "old version": lambda bench, key: (key, bench.sealed({"kind": "catalogue", "version": 1, "effective_us": 1 << 60})),
}

RANDOM_WINDOWS: Final[list[dict[str, Any]]] = [
    {"window": "hour"},
    {"window": "day"},
    {"window": "rolling", "length_s": 3_600},
    {"window": "rolling", "length_s": 61},
    {"window": "first_use", "length_s": 18_000},
    {"window": "month", "currency": None, "price": "tiered"},
    {"window": "day", "currency": None, "meter": "units"},
    {"window": "day", "currency": None, "price": "unheard"},
    {"window": "day", "currency": None, "meter": "unheard"},
    {"window": "day", "price": "x"},
    {"window": "fortnight"},
]
MODELS: Final = ("x", "x", "y", "third", "tiered")
ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu")


def versions() -> tuple[CatalogueDocument, CatalogueDocument, CatalogueDocument]:
    """Three catalogue versions: dearer thirds and other tiers, then x given away."""
    second = document(
        third=per_unit("0.000000000005", "7", model="third"),
        tiered=graduated(("20", "7"), (None, "0.5"), model="tiered"),
    )
    third = document(x=per_unit("0", model="x"))
    streams = {"use": StreamDefinition(6 * 3_600)}
    return replace(document(), streams=streams), replace(second, streams=streams), replace(third, streams=streams)


NEXT_MONTHS: Final = [us(f"2026-{month:02}-01T00:00:00+00:00") for month in range(4, 10)]


class RandomLog:
    """A log with the rhythm of real traffic and every fault: `step` writes one more record to the bench."""

    def __init__(self, bench: Bench, source: random.Random, *, stride_us: int, accounts: int = 4) -> None:
        self.bench = bench
        self.source = source
        self.stride_us = stride_us
        self.accounts = [name for name in (f"cus_{number}" for number in range(1000)) if self._lives_here(name)]
        self.accounts = self.accounts[:accounts]
        self.sent: list[tuple[bytes | None, bytes]] = []
        self.commands: list[dict[str, Any]] = []
        self.streams: list[tuple[str, str, int, Hold | None]] = []  # account, id, seq, hold
        self.published = 1
        for account in self.accounts:
            bench.open(account, zone=source.choice(ZONES), anchor_day=source.choice([1, 15, 31]))
            soon, later = (bench.now + source.randrange(1, 120) * stride_us for _ in range(2))
            bench.grant("welcome", "40", "promo", account, priority=10, expires_us=soon)
            bench.grant("prepaid", "90", account=account, effective_us=later, expires_us=later + soon - START)
            bench.cap("300", account=account)
            bench.cap_rule(80, account=account, clear_percent=source.choice([80, 60]))
            bench.cap_rule(100, account=account)
            bench.balance_rule("20", account=account, clear=source.choice(["20", "45"]))
            bench.scope("team:a", account)
            bench.scope("team:a/ann", account)
            bench.cap("60", "team", account, scope="team:a", hard=False)
            bench.cap_rule(50, "team-50", account, cap="team", clear_percent=source.choice([50, 40]))
            rollover = {"percent": 50, "days": 20}
            bench.recurring("free", "6", account, every=source.choice(["period", "month"]), rollover=rollover)
            bench.top_up("25", "30", account, cooldown_s=self.source.choice([600, 86_400]), attempts=2)
            self._windows(account)
        self.holds: list[Hold] = []
        self.chains: list[tuple[bytes, bytes, int]] = []  # account, what is in force, how often it was amended

    def _windows(self, account: str) -> None:
        """Caps that count for themselves, in windows that are short and long for the rhythm of this log."""
        bench, minutes = self.bench, max(1, self.stride_us // MINUTE)
        bench.cap("15", "hourly", account, window="hour")
        bench.cap("42", "daily", account, window="day", scope="team:a", hard=False)
        bench.cap("90", "weekly", account, window="week")
        bench.cap("30", "rolling", account, window="rolling", length_s=60 * min(7 * minutes, 43_200))
        bench.cap("25", "opened", account, window="first_use", length_s=60 * min(5 * minutes, 43_200))
        bench.cap("40", "units", account, currency=None, meter="units", window="rolling", length_s=300)
        bench.cap("9", "x", account, currency=None, price="x", scope="team:a/ann")
        for cap in ("hourly", "daily", "weekly", "rolling", "opened", "units", "x"):
            percent = self.source.choice([60, 100])
            bench.cap_rule(percent, cap, account, cap=cap, clear_percent=self.source.choice([percent, 40]))

    def _lives_here(self, account: str) -> bool:
        return partition_for(account.encode(), self.bench.partitions) == self.bench.number

    def step(self) -> str:
        source, bench = self.source, self.bench
        if source.random() < 0.8:
            bench.now += source.randrange(2 * self.stride_us)
        elif source.random() < 0.1:
            bench.now -= source.randrange(SECOND)  # the clock of another broker
        kind = source.choices(
            [
                "use",
                "llm",
                "correct",
                "stream",
                "held",
                "slices",
                "again",
                "conflict",
                "malformed",
                "command",
                "version",
                "tick",
                "elsewhere",
            ],
            [50, 8, 10, 8, 10, 3, 4, 1, 4, 11, 1, 2, 1],
        )[0]
        account = source.choice(self.accounts)
        key = account.encode()
        if kind == "again" and self.sent:
            return bench.record(*source.choice(self.sent))
        if kind == "conflict" and self.sent:
            sender, value = source.choice(self.sent)
            return bench.record(sender, json.dumps(json.loads(value) | {"data": {"model": "x", "units": 99}}).encode())
        if kind == "malformed":
            return bench.record(*source.choice(list(MALFORMED.values()))(bench, key))
        if kind == "command":
            return self._command(account)
        if kind == "version" and self.published < len(bench.library):
            self.published += 1
            return bench.publish(self.published, bench.now + 5 * MINUTE + source.randrange(1, self.stride_us * 20))
        if kind == "tick":
            epoch = source.randrange(3)
            return bench.control({"kind": source.choice(["tick", "tick", "owner"]), "epoch": epoch})
        if kind == "correct":
            return self._correct(key)
        if kind == "stream":
            return self._stream(account)
        if kind == "held":
            return self._settle(account)
        if kind == "slices":
            return self._slices(account)
        if kind == "elsewhere" and bench.partitions > 1:
            return bench.use(account=f"stranger-{source.randrange(100)}")
        return self._use(key, kind)

    def _use(self, key: bytes, kind: str) -> str:
        source, bench = self.source, self.bench
        sender: bytes | None = key
        more: dict[str, object] = {}
        if source.random() < 0.03:
            sender, more["subject"] = None, key.decode()
        value = self._event(key, kind, **more)
        self.sent.append((sender, value))
        return bench.record(sender, value)

    def _event(self, key: bytes, kind: str, **more: object) -> bytes:
        source, bench = self.source, self.bench
        late = source.choice([0, 0, 0, source.randrange(self.stride_us * 30), -source.randrange(4 * MINUTE)])
        if kind == "llm":
            model = source.choice(["a", "b", "c"])
            more |= {"type": "llm.request", "data": {"model": model, "tokens": source.randrange(900)}}
        if source.random() < 0.3:
            more["scope"] = source.choice(["team:a", "team:a/ann", "team:a/ann/deeper", "team:b"])
        units: object = source.choice([0, 1, 2, 3, source.randrange(40), f"{source.randrange(9)}.5"])
        return bench.event(units, source.choice(MODELS), bench.now - late, **more)

    def _correct(self, key: bytes) -> str:
        """Cancel or amend what was sent, is yet to be sent, was corrected before, or was never so; or send again."""
        source, bench = self.source, self.bench
        if source.random() < 0.3 or not self.chains:
            self.chains.append((key, self._event(key, "use"), 0))
            if source.random() < 0.5:
                self.sent.append(self.chains[-1][:2])
                bench.record(*self.sent[-1])
        at = source.randrange(max(0, len(self.chains) - 6), len(self.chains))
        key, original, revision = self.chains[at]
        if source.random() < 0.3 and revision == 0:
            self.sent.append((key, original))
            return bench.record(key, original)
        if source.random() < 0.1:
            revision += source.choice([-1, 1])
        amended = None
        if source.random() < 0.6:
            other = json.loads(self._event(key, source.choice(["use", "llm"])))
            kept = ("id", "source", "hold", "holdfinal")
            amended = json.dumps(other | {name: json.loads(original).get(name, other.get(name)) for name in kept[:2]})
        if source.random() < 0.05:
            original = json.dumps(json.loads(original) | {"data": {"model": "x", "units": 77}}).encode()
        record = bench.correction(original, amended.encode() if amended else None, revision)
        if amended and revision == self.chains[at][2]:
            self.chains[at] = key, amended.encode(), revision + 1
        self.sent.append((key, record))
        return bench.record(key, record)

    def _stream(self, account: str) -> str:
        """An event of a stream: the first, a later one, one that was overtaken, or one too late."""
        source, bench = self.source, self.bench
        if not self.streams or source.random() < 0.4:
            of_account = [hold for hold in self.holds[-6:] if hold.account == account]
            hold = of_account[-1] if of_account and source.random() < 0.3 else None
            self.streams.append((account, f"stream-{len(self.streams)}", 0, hold))
        at = source.randrange(max(0, len(self.streams) - 4), len(self.streams))
        account, name, seq, hold = self.streams[at]
        seq = max(0, seq + source.choice([1, 1, 1, 2, 0, -1]))
        self.streams[at] = account, name, max(seq, self.streams[at][2]), hold
        more: dict[str, object] = {"id": name, "seq": seq}
        if hold is not None and source.random() < 0.95:
            more |= {"hold": seal_token(KEY, hold), "holdfinal": source.random() < 0.3}
        value = self._event(account.encode(), source.choice(["use"] * 9 + ["llm"]), **more)
        self.sent.append((account.encode(), value))
        return bench.record(*self.sent[-1])

    def _slices(self, account: str) -> str:
        """Now and then by an owner that is no longer in office, or for nobody."""
        source, bench = self.source, self.bench
        quantities = {price: source.randrange(1, 50) * NANO for price in source.sample(["x", "y", "tiered"], 2)}
        row: dict[str, dict[str, int]] = {account: source.choice([quantities, quantities, {}]), "nobody": {"x": NANO}}
        linger_us = source.choice([MINUTE, self.stride_us * 4, DAY])
        return bench.slices(max(0, bench.partition.epoch - source.choice([0, 0, 1])), row, linger_us)

    def _settle(self, account: str) -> str:
        """Usage under a new hold, or under one that had usage before: within it, beyond it, or late."""
        source, bench = self.source, self.bench
        if not self.holds or source.random() < 0.6:
            bounds = (
                Bound(source.randrange(1, 20) * NANO, ("x", "y"), ("x",)),
                Bound(source.randrange(1, 5) * NANO, ("tiered",), ("tiered",)),
            )
            self.holds.append(
                bench.hold(
                    *bounds[: source.randrange(1, 3)],
                    number=len(self.holds),
                    epoch=max(0, bench.partition.epoch - source.randrange(2)),
                    account=account,
                    scope=source.choice(["", "team:a", "team:a/ann"]),
                    at=bench.now - source.randrange(self.stride_us),
                    ttl_us=source.choice([MINUTE, self.stride_us * 3]),
                )
            )
        hold = source.choice(self.holds[-6:])
        final = source.random() < 0.6
        model = source.choice(["x", "x", "y", "tiered", "third"])
        stated = {"scope": "team:b"} if hold.number % 7 == 3 else {}  # whatever it states
        return bench.spend_held(hold, source.randrange(20), model, final=final, **stated)

    def _command(self, account: str) -> str:
        source, bench = self.source, self.bench
        if self.commands and source.random() < 0.2:
            body = source.choice(self.commands)
            other = {"kind": "set_cap", "cap": "reused", "amount": "1", "currency": "USD"}
            reused = other | {name: body[name] for name in ("account", "command_key")}
            return bench.control(body if source.random() < 0.6 else reused)
        body = {"account": account, "command_key": f"random-{len(bench.log)}"}
        kinds = ["grant"] * 6 + [
            "set_cap",
            "percent",
            "balance",
            "open_account",
            "void_lot",
            "refund_lot",
            "adjust",
        ] * 2
        kinds += ["set_price", "set_plan", "set_pause"] * 2 + ["measure"] * 4 + ["remove_rule", "remove_cap"]
        kinds += ["set_recurring_grant"] * 2 + ["remove_recurring_grant"]
        kinds += ["grant_quantity"] * 4 + ["void_quantity_grant"]
        kinds += ["set_top_up", *["answer_top_up"] * 6, "remove_top_up", *["rerate"] * 3]
        kind = source.choice([*kinds, *["set_scope", "set_overdraft", "set_rate_limit", "set_allowed"] * 2])
        if kind == "grant":
            span = self.stride_us * 40
            body |= {
                "kind": "grant",
                "lot": f"lot-{source.randrange(10_000)}",
                "lot_kind": source.choice(["paid"] * 6 + ["promo"] * 3 + ["commit", "refund", "loan"]),
                "amount": source.choice(["5", "17.25", "60", "240", "900", "0.000000000001"] * 2 + ["0"]),
                "currency": source.choice(["USD"] * 14 + ["EUR"]),
                "priority": source.randrange(3),
                "effective_us": source.choice([None, None, bench.now + source.randrange(-span, span)]),
                "expires_us": source.choice([None, *[bench.now + source.randrange(-span // 6, 3 * span)] * 2]),
                "scope": source.choice([[], [], ["x"], ["x", "third"], ["tiered"]] * 2 + [["unheard"]]),
                "pays_debt": source.choice([None, None, True, False]),
                "rollover": source.choice([None, None, {"percent": source.choice([50, 100, 33, 0]), "days": 30}]),
            }
        elif kind in ("void_lot", "refund_lot"):
            lots = [*bench.account(account).lots, "unheard"]
            amounts = ["1", "7.5", "0.000000000001", "1000", "0"]
            body |= {"kind": kind, "lot": source.choice(lots), "amount": source.choice(amounts), "currency": "USD"}
            if kind == "void_lot" and source.random() < 0.4:
                del body["amount"]
            if source.random() < 0.05:
                body["currency"] = "EUR"
        elif kind == "adjust":
            body |= {
                "kind": kind,
                "line": f"line-{source.randrange(20)}",
                "amount": source.choice(["3", "-2.5", "40", "-60", "0.000000000001", "0"]),
                "currency": source.choice(["USD"] * 9 + ["EUR"]),
                "reason": source.choice(["goodwill"] * 9 + [" "]),
                "by": "ann",
                "price": source.choice([None, None, "x", "tiered", "unheard"]),
                "used_us": source.choice([None, None, bench.now - source.randrange(60 * DAY), bench.now + DAY]),
            }
        elif kind == "rerate":
            return self._rerate(account)
        elif kind == "set_cap":
            body |= {"kind": kind, "cap": "monthly", "amount": source.choice(["10", "300", "900"]), "currency": "USD"}
            if source.random() < 0.4:
                body |= {"cap": "team", "scope": source.choice(["team:a", "team:a/ann", "unheard"]), "hard": False}
            if source.random() < 0.5:
                body |= {"cap": source.choice(["hourly", "rolling", "opened", "x"])}
                body |= source.choice(RANDOM_WINDOWS)
            if body["cap"] == "monthly" or len(bench.log) % 9 == 0:
                body |= {"basis": ("charged", "list", "due")[len(bench.log) % 3]}
                body |= {"beyond": ("owed", "waived")[len(bench.log) // 3 % 2]}
        elif kind == "remove_rule":
            body |= {"kind": kind, "rule": source.choice(["low", "cap-50", "far", "more"])}
        elif kind == "remove_cap":
            body |= {"kind": kind, "cap": source.choice(["monthly", "team", "rolling", "x"])}
        elif kind == "set_scope":
            scope = source.choice(["", "team:a", "team:b", "team:a/ann/deeper", "none/such", "a b"])
            body |= {"kind": kind, "scope": scope, "standing": source.choice(["active", "suspended", "gone"])}
        elif kind == "set_overdraft":
            body |= {"kind": kind, "amount": source.choice([None, "0", "5", "-1"]), "currency": "USD"}
            if len(bench.log) % 2:
                del body["amount"]
                limit = (None, "5", "-1", "7")[len(bench.log) // 2 % 4]
                billing = ("postpaid", "postpaid", "prepaid")[len(bench.log) // 2 % 3]
                body |= {"kind": "set_billing", "billing": billing, "credit_limit": limit}
        elif kind == "set_rate_limit":
            per_minute, scope = source.choice([0, 60, -1]), source.choice(["", "team:a", "unheard"])
            body |= {"kind": kind, "limit": "burst", "scope": scope, "per_minute": per_minute}
            body |= {"meter": source.choice([None, None, "units", "unheard"])}
        elif kind == "set_allowed":
            values = source.choice([None, ["x"], ["x", "y"], ["x", "x"]])
            body |= {"kind": kind, "field": "model", "values": values, "scope": source.choice(["", "unheard"])}
        elif kind == "set_pause":
            at = bench.now + source.randrange(-self.stride_us * 9, self.stride_us * 40)
            body |= {"kind": kind, "paused": source.choice([True, False]), "from_us": source.choice([None, at, at])}
        elif kind == "set_plan":
            at = bench.now + source.randrange(-self.stride_us * 4, self.stride_us * 40)
            plan = source.choice(["plan", "pro", "pro", "calls", "unheard"])
            body |= {"kind": kind, "plan": plan, "from_us": source.choice([None, None, at])}
        elif kind == "set_recurring_grant":
            body |= {
                "kind": kind,
                "grant": source.choice(["a", "b", "c"]),
                "every": source.choice(["period", "month", "week"] * 3 + ["day"]),
                "lot_kind": source.choice(["promo"] * 8 + ["loan"]),
                "amount": source.choice(["3", "11"] * 4 + ["0"]),
                "currency": source.choice(["USD"] * 9 + ["EUR"]),
                "priority": source.randrange(3),
                "scope": source.choice([[], [], ["x"]] * 3 + [["unheard"]]),
                "pays_debt": source.random() < 0.3,
                "days": source.choice([None, None, 1, 40, 0]),
                "expires": source.random() < 0.9,
                "rollover": source.choice(
                    [None, None, {"percent": 50, "days": 3, "cap": "2"}, {"percent": 0, "days": 1}]
                ),
            }
        elif kind == "remove_recurring_grant":
            body |= {"kind": kind, "grant": source.choice(["a", "b"])}
        elif kind == "grant_quantity":
            at = bench.now + source.randrange(-self.stride_us, self.stride_us * 40)
            body |= {
                "kind": kind,
                "grant": f"units-{source.randrange(10)}",
                "price": source.choice(["x", "x", "rest", "calls", "unheard"]),
                "quantity": source.choice(["3", "11.5", "40", "0"]),
                "effective_us": source.choice([None, None, at]),
                "expires_us": source.choice([None, None, None, at + self.stride_us, bench.now + 99 * DAY]),
            }
        elif kind == "void_quantity_grant":
            body |= {"kind": kind, "grant": f"units-{source.randrange(10)}"}
        elif kind == "set_top_up":
            threshold = source.choice(["30", "30", "0", "-200", "x"])
            body |= {"kind": kind, "threshold": threshold, "amount": source.choice(["25", "150", "0"])}
            body |= {"currency": source.choice(["USD"] * 9 + ["EUR"]), "cooldown_s": source.choice([600, 7200, 599])}
            body |= {"attempts": source.choice([1, 2, 2]), "days": source.choice([None, 3])}
        elif kind == "answer_top_up":
            requests = bench.requests(account)
            body |= {"kind": kind, "request": source.choice([*requests[-1:] * 3, *requests[-2:], "unheard"])}
            body |= {"paid": source.choice([True, False])}
        elif kind == "remove_top_up":
            body |= {"kind": kind}
        elif kind == "set_price":
            span = self.stride_us * 40
            terms = {"model": "per_unit", "amount": source.choice(["0.5", "2", "0.000000000001"]), "per": "7"}
            terms = source.choice([terms, terms | {"included": "4"}, terms | {"model": "package"}, {"model": "flat"}])
            at = source.choice([bench.now + source.randrange(-span // 8, span), NEXT_MONTHS[source.randrange(6)]])
            body |= {
                "kind": kind,
                "price": source.choice(["x", "x", "y", "tiered", "third", "unheard"]),
                "currency": source.choice(["USD"] * 9 + ["EUR"]),
                "terms": source.choice([terms, terms, terms, None]),
                "from_us": source.choice([None, at, at]),
            }
        elif kind == "open_account":
            body |= {"kind": kind, "plan": "plan", "zone": source.choice(["UTC", "Mars/Base"])}
        else:
            on: dict[str, object] = {"measure": "balance", "threshold": source.choice(["20", "-100", "x"])}
            if kind == "percent":
                on = {"measure": "cap_percent", "cap": source.choice(["monthly", "none"]), "percent": 50}
            elif kind == "measure":
                on = self._measure(account)
            body |= {"kind": "set_rule", "rule": source.choice(["low", "cap-50", "cap-80", "far", "more"]), "on": on}
            body |= {"level": source.choice(["info", "warning", "critical", "critical", "loud"])}
        self.commands.append(body)
        return bench.control(body)

    def _rerate(self, account: str) -> str:
        """Another version of a price for a stretch of what was used, mostly one that can be."""
        bench, source = self.bench, self.source
        edges = [*bench.account(account).table, *NEXT_MONTHS[:3], bench.now]
        from_us, to_us = source.choice([0, 0, *edges]), source.choice([1 << 60, 1 << 60, *edges])
        asked = Rerating(source.choice([1, 2, 3]), from_us, to_us)
        wrong: list[dict[str, Any]] = [{"differences": [[START, "1"]]}, {"reason": " "}, {"currency": "EUR"}]
        changed = source.choice([{}] * 9 + wrong)
        price = source.choice(["x", "x", "tiered", "tiered", "third", "gift", "unheard"])
        return bench.rerate(price, asked, f"rerate-{source.randrange(30)}", account, **changed)

    def _measure(self, account: str) -> dict[str, Any]:
        """What a rule looks at, now and then what none can."""
        source = self.source
        lots = [*self.bench.account(account).lots, "unheard"]
        scope = source.choice(["", "", "team:a", "unheard"])
        window: dict[str, Any] = source.choice(
            [
                {},
                {"window": "hour"},
                {"window": "rolling", "length_s": 3600},
                {"window": "rolling", "length_s": 6 * 3600, "direction": "down"},
                {"window": "first_use", "length_s": 18_000},
                {"window": "day", "direction": "down"},
            ]
        )
        unit: dict[str, Any] = source.choice([{"meter": "units"}, {"price": "x"}, {"price": "unheard"}, {}])
        percent = source.choice([20, 50, 100, 150])
        return source.choice(
            [
                {"measure": "balance", "threshold": "300", "clear": "100", "direction": "up"},
                {"measure": "spend", "threshold": source.choice(["5", "40"]), "scope": scope} | window,
                {"measure": "quantity", "threshold": source.choice(["5", "40", "0"]), "scope": scope} | unit | window,
                {"measure": "included_percent", "price": source.choice(["x", "gift", "unheard"]), "percent": percent},
                {"measure": "lot_percent", "lot": source.choice(lots), "percent": percent, "clear_percent": 60},
                {
                    "measure": "expiring",
                    "threshold": source.choice(["5", "100"]),
                    "clear": "2",
                    "within_s": source.choice([3600, 30 * 86_400, 0]),
                },
                {
                    "measure": "spike",
                    "percent": percent,
                    "clear_percent": 20,
                    "minimum": "3",
                    "bucket_s": source.choice([60, 3600, 7200, 61]),
                    "scope": scope,
                }
                | unit,
            ]
        )


def random_bench(seed: int, steps: int) -> tuple[Bench, RandomLog]:
    """A partition with that many random steps behind it, and what makes further ones."""
    bench = Bench(*versions(), partitions=2)
    log = RandomLog(bench, random.Random(seed), stride_us=2 * HOUR)
    for _ in range(steps):
        log.step()
    return bench, log
