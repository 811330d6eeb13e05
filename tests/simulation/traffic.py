"""What a seed's producers write: the demo's traffic with its faults, usage of all else that is sold, commands of every
kind (beside what `terms.py` and `deals.py` draw), a second catalogue version.

Wall time may run many times faster than the time in which processes wait, so that months, periods, lots and the
duplicate memory end within seconds. Everything follows from the seed; times are stamped as the records are written.
"""

import math
import re
from collections.abc import Collection, Sequence
from random import Random
from typing import Any

import orjson
from msgspec import Struct

from engine.corrections import AMEND, CANCEL
from engine.events import seal
from loadtest.oracle.records import partition_of
from loadtest.workload import FEW_MIN, PLANS, SECOND_US, Send, Workload, cloud_time, decimal
from tests.simulation.catalogues import Sales, oracle_library
from tests.simulation.deals import Ahead, Deals
from tests.simulation.streams import Streaming
from tests.simulation.terms import Terms

CONTROL_KEY = b"the simulator's own control key, 32+"
TOPIC = "usage"
POISON = b"poison-"  # begins the id of an event that breaks the engine
POISON_LATE = b"late-poison-"  # of one that breaks it when it has changed the account
_TYPE = re.compile(rb'"type":"[^"]*"')
POISON_SHARE = 0.02
CORRECTED_SHARE = 0.05  # of the events are cancelled or amended, before they come or after
TERMS_SHARE = 0.25  # of the seeds set terms of all kinds, and twice as many of those in which gateways ask
DEALS_SHARE = 0.4  # of the seeds have customers who pay otherwise, or are given something
STUDIO_SHARE = 0.5  # of these have a shop, if they have any, that is billed in credits
STUDIO = "studio"  # the plan of the example that is
CREDITS = "CREDITS"
STREAMS_SHARE = 0.3  # of the seeds say of some requests again and again what they have come to
EVENTS_MIN = 8  # that are left where commands take the place of events
BROKEN_SHARE = 0.03  # of the events are sent broken first, then mended under the same id
SKEW = 4.0  # of the sizes: drawn evenly, a seed cost twice the time, and a safeguard taken away was noticed by no more
OPENINGS = ("welcome", "caps", "low-balance")  # what accounts of the demo open with, beside a wallet
MARKER_AHEAD_US = 302 * SECOND_US  # a version may not be effective before every event that may still come


def skewed(random: Random, least: int, most: int) -> int:
    """Mostly near the least, in one of twenty draws near the most: a small run shows most of what a large one shows."""
    return least + round((most - least) * math.pow(random.random(), SKEW))


class Write(Struct, frozen=True):
    """One record to be written `at_s` after the start. `make(now_us)` gives its value."""

    at_s: float
    key: bytes | None
    partition: int | None
    make: Any  # Callable[[int], bytes | None]


class Jump(Struct, frozen=True):
    """Of log time, `at_s` after the start."""

    at_s: float
    by_us: int


def draw_jumps(random: Random, seconds: float) -> list[Jump]:
    """One or two, by an hour or up to half a year."""
    by_days = [random.choice([1 / 24, 3, 20, 33, 180]) for _ in range(random.randint(1, 2))]
    return [Jump(random.uniform(0.1, 0.7) * seconds, int(days * 86_400) * SECOND_US) for days in by_days]


def _broken(value: bytes | None) -> bytes:
    """The event as a dead letter: of a type that no meter takes."""
    assert value is not None
    return unheard_of(value)


def unheard_of(value: bytes) -> bytes:
    """The same event, of a type that no meter takes."""
    return _TYPE.sub(b'"type":"llm.unheard-of"', value, count=1)


def is_poison(value: bytes) -> bool:
    """Whether the record breaks the engine, early or late."""
    return b'"id":"' + POISON in value or b'"id":"' + POISON_LATE in value


def _poisonous(value: bytes | None, poison: bytes) -> bytes:
    assert value is not None
    return value.replace(b'"id":"', b'"id":"' + poison, 1)


def _opening(body: dict[str, Any]) -> str:
    """Which of `OPENINGS` a command of the demo's setup is, if any."""
    if "cap" in body or body.get("rule", "").startswith("cap-"):
        return "caps"
    return str(body.get("lot") or body.get("rule") or "")


def _once(make: Any) -> Any:
    """The same bytes at every call."""
    kept: list[bytes | None] = []

    def first(now_us: int) -> bytes | None:
        if not kept:
            kept.append(make(now_us))
        return kept[0]

    return first


def _correction(value: bytes, revision: int, cancels: bool) -> bytes:
    """Of an event that was amended so often: each amend counts one token more."""
    event = orjson.loads(value)

    def amended(times: int) -> dict[str, Any]:
        data = {name: count + times if type(count) is int else count for name, count in event["data"].items()}
        return {**event, "data": data}

    data = {"original": amended(revision), "revision": revision}
    if not cancels:
        data["amended"] = amended(revision + 1)
    names = {"specversion": "1.0", "id": f"{event['id']}-{revision}", "source": "support"}
    kind = {"type": CANCEL if cancels else AMEND, "subject": event.get("subject")}
    return orjson.dumps(names | kind | {"data": data})


class Traffic:
    """`writes` in order of time; `setup(now_us)` goes before them, all at once."""

    def __init__(
        self,
        random: Random,
        *,
        partitions: int,
        events: int,
        accounts: int,
        seconds: float,
        pace: float,
        catalogue: int = 0,
        sales: int = 0,
        rare: int = FEW_MIN,
        without: Collection[str] = (),
        again: float = 0.0,
        asking: Sequence[str] = (),
        jumps: "Sequence[Jump]" = (),
    ) -> None:
        """`pace`: seconds of wall time per second that processes wait. `sales`: usage of other kinds than requests to
        models. `rare`: how many there are of each rare kind of record. `without`: what accounts have not, of `OPENINGS`.
        `again`: the share of events that come again later. `asking`: other accounts that terms may be set for. `jumps`: of
        the clock of a sandbox; some usage comes late then, by much of what the clock has jumped."""
        self.partitions = partitions
        self.pace = pace
        self.seconds = seconds
        self._random = random
        self._correcting = Random()  # draws of its own, so that without corrections a seed is what it was
        self._correcting.setstate(random.getstate())
        self._corrects = self._correcting.random() < 0.5  # whether this seed corrects anything
        state = repr(random.getstate())
        self._crediting = Random(state)  # and another, so that what they draw stays what it was
        self._selling = Random(f"sales {state}")
        setting = Random(f"terms {state}")
        dealing = Random(f"deals {state}")
        deals_count = skewed(dealing, 3, 14) if dealing.random() < DEALS_SHARE else 0
        self.deals = deals_count > 0  # then payments and whoever rates again look on
        self._streaming = Streaming(dealing) if dealing.random() < STREAMS_SHARE else None
        self._work = Workload(
            random.randrange(2**32),
            max(min(events, EVENTS_MIN), events - deals_count),
            accounts,
            None,
            seconds * pace,
            catalogue=oracle_library(catalogue)[1],
            partitions=partitions,
            rare=rare,
        )
        self._without = without
        self._again = again
        self._repeating = Random(f"again {random.getstate()}")
        self._shops = [f"shop-{number}" for number in range(skewed(self._selling, 1, 3))] if sales else []
        self._studios = self._shops[:1] if deals_count and dealing.random() < STUDIO_SHARE else []
        self._sold = Sales(catalogue, self._selling)
        version = oracle_library(catalogue)[1]
        everybody = [*self._work.customers, *self._shops]
        terms = Terms(setting, everybody, asking, version)
        self._terms = [
            self._term(number, setting.uniform(0, seconds), terms.command(), asking)
            for number in range(skewed(setting, 4, 24) if setting.random() < TERMS_SHARE * (1 + bool(asking)) else 0)
        ]
        currencies = dict.fromkeys(self._studios, CREDITS)
        deals = Deals(dealing, everybody, asking, version, currencies)
        self._deals = [
            self._deal(number, dealing.uniform(0, 0.8 * seconds), *deals.command()) for number in range(deals_count)
        ]
        self._jumps = jumps
        spans_s = 0.6 * seconds * pace + sum(jump.by_us for jump in jumps) / SECOND_US
        self._back_max_us = int(min(20 * 86_400, spans_s) * SECOND_US)
        self.writes = sorted(
            [
                *self._events(),
                *self._sales(sales),
                *self._commands(),
                *self._credit(),
                *self._versions(),
                *self._terms,
                *self._deals,
                *self._advances(),
            ],
            key=lambda write: write.at_s,
        )

    def now_us(self, at_s: float, wall_us: int) -> int:
        """What producers take for the time, where the wall clock says this: that of the sandbox, if it is one."""
        return wall_us + sum(jump.by_us for jump in self._jumps if jump.at_s < at_s)

    def _advances(self) -> list[Write]:
        """Each jump in every partition, as one act of an admin."""

        def write(jump: Jump, partition: int) -> Write:
            def make(now_us: int) -> bytes:
                return self._sealed(partition, {"kind": "advance", "until_us": now_us + jump.by_us})

            return Write(jump.at_s, None, partition, make)

        return [write(jump, partition) for jump in self._jumps for partition in range(self.partitions)]

    def _sealed(self, partition: int, body: dict[str, Any]) -> bytes:
        return seal(CONTROL_KEY, TOPIC, partition, orjson.dumps(body))

    def _home(self, account: str) -> int:
        return partition_of(account.encode(), self.partitions)

    def setup(self, now_us: int) -> list[tuple[int, bytes]]:
        """(partition, value): the first catalogue version, then every account with its wallet and rules."""
        markers = [
            (number, self._sealed(number, {"kind": "catalogue", "version": 1, "effective_us": 0}))
            for number in range(self.partitions)
        ]
        bodies = [body for body in self._work.setup(now_us) if _opening(body) not in self._without]
        for shop in self._shops:
            bodies += self._shop(shop)
        commands = [(self._home(body["account"]), self._sealed(self._home(body["account"]), body)) for body in bodies]
        return markers + commands

    def _shop(self, account: str) -> list[dict[str, Any]]:
        """An account whose usage may be of everything that is sold, with a wallet that it may use up."""
        draw = self._selling
        currency = CREDITS if account in self._studios else "USD"
        cap = {"kind": "set_cap", "cap": "monthly", "amount": draw.choice(["5", "200"]), "currency": currency}
        half = {"measure": "cap_percent", "cap": "monthly", "percent": draw.randint(10, 120)}
        bodies: list[dict[str, Any]] = [
            {"kind": "open_account", "plan": STUDIO if account in self._studios else draw.choice(PLANS)},
            {"kind": "grant", "lot": "prepaid", "lot_kind": "paid", "amount": draw.choice(["3", "90", "4000"])}
            | {"currency": currency, "priority": 20},
        ]
        if draw.random() < 0.5:
            bodies += [cap, {"kind": "set_rule", "rule": "half", "on": half}]
        return [
            body | {"account": account, "command_key": f"open-{account}-{step}"} for step, body in enumerate(bodies)
        ]

    def _sales(self, count: int) -> list[Write]:
        """Usage of what is sold beside requests to models: in any order, some of it again, corrected, or poisonous."""
        draw = self._selling
        writes = []
        for number in range(count):
            account = draw.choice(self._shops)
            event_type, data = self._sold.images() if account in self._studios else self._sold.usage()
            back_us = draw.randrange(self._back_max_us) if draw.random() < 0.1 else 0
            event: dict[str, Any] = {"specversion": "1.0", "id": f"sale-{number}", "source": "shops"}
            event |= {"type": event_type, "subject": account, "data": data}

            def make(now_us: int, event: dict[str, Any] = event, back_us: int = back_us) -> bytes:
                return orjson.dumps(event | {"time": cloud_time(now_us - back_us)})

            make = _once(make)
            send = Send(draw.uniform(0, self.seconds) * self.pace, "event", account.encode(), None, None, make)
            writes += [self._write_of(send, make)]
            if draw.random() < 0.05:
                writes.append(self._write_of(send, make, draw.uniform(0.0, 0.7)))
            if self._corrects and draw.random() < 2 * CORRECTED_SHARE:
                writes += self._corrections(send, make)
            if draw.random() < POISON_SHARE:
                writes.append(self._write_of(send, lambda now_us, make=make: _poisonous(make(now_us), POISON)))
        return writes

    def _write_of(self, send: Send, make: Any, later_s: float = 0.0) -> Write:
        return Write(send.at_s / self.pace + later_s, send.key, send.partition, make)

    def _events(self) -> list[Write]:
        writes = []
        for send in self._work:
            back_us = self._random.randrange(self._back_max_us) if self._random.random() < 0.04 else 0

            def rendered(now_us: int, send: Any = send, back_us: int = back_us) -> bytes | None:
                value: bytes | None = send.render(now_us - back_us)
                if send.seal_partition is not None and value is not None:
                    value = seal(CONTROL_KEY, TOPIC, send.seal_partition, value)
                return value

            make: Any = rendered
            if send.kind == "event" and self._streaming is not None:
                make = self._streaming.part(make)
            if send.kind == "event" and self._repeating.random() < self._again:
                make = _once(make)
                later_s = self._repeating.uniform(0.3, 1.0) * max(0.0, self.seconds - send.at_s / self.pace)
                writes.append(self._write_of(send, make, later_s))
            if send.kind == "event" and self._corrects and self._correcting.random() < CORRECTED_SHARE:
                make = _once(make)
                writes += self._corrections(send, make)
            writes.append(Write(send.at_s / self.pace, send.key, send.partition, make))
            if send.kind == "event" and self._random.random() < POISON_SHARE:
                at_s = send.at_s / self.pace + self._random.uniform(0.0, 0.5)
                poison = self._random.choice([POISON, POISON_LATE])
                writes.append(
                    Write(
                        at_s,
                        send.key,
                        send.partition,
                        lambda now_us, make=rendered, poison=poison: _poisonous(make(now_us), poison),
                    )
                )
            if send.kind == "event" and self._random.random() < BROKEN_SHARE:
                before_s = self._random.uniform(0.0, 0.5)
                writes.append(
                    Write(
                        send.at_s / self.pace - before_s,
                        send.key,
                        send.partition,
                        lambda now_us, make=make: _broken(make(now_us)),
                    )
                )
        return writes

    def _corrections(self, send: Any, make: Any) -> list[Write]:
        """Amends of what the amend before made, then a cancel or none; in any order, before the event or behind it, and
        some of them twice."""
        amends = self._correcting.randrange(3)
        ends = [True] if amends == 0 or self._correcting.random() < 0.5 else []
        writes = []
        for revision, cancels in enumerate([False] * amends + ends):

            def correct(now_us: int, revision: int = revision, cancels: bool = cancels) -> bytes:
                return _correction(make(now_us), revision, cancels)

            for _ in range(self._correcting.choice([1, 1, 2])):
                at_s = send.at_s / self.pace + self._correcting.uniform(-0.3, 0.7)
                writes.append(Write(at_s, send.key, send.partition, correct))
        return writes

    def _commands(self) -> list[Write]:
        writes = []
        for number in range(skewed(self._random, 2, 18)):
            at_s = self._random.uniform(0, self.seconds)
            owner = self._random.randrange(len(self._work.customers))
            body = self._command(number, owner)
            ends_s = self._random.uniform(0.05, 0.5 * self.seconds)
            if self._random.random() < 0.2:
                ends_s = self.seconds - at_s + self._random.uniform(0.5, 2.5)  # when no other record moves log time
            begins_s = self._random.uniform(0, ends_s) if self._random.random() < 0.3 else None
            kept: list[bytes] = []
            writes.append(self._write(at_s, body, ends_s, begins_s, kept))
            later_s = at_s + self._random.uniform(0, 1)
            if self._random.random() < 0.2:
                writes.append(Write(later_s, writes[-1].key, writes[-1].partition, lambda _, kept=kept: kept[0]))
            if self._random.random() < 0.1:
                writes.append(self._write(later_s, body | {"amount": "0.5"}, ends_s, begins_s, []))
        return writes

    def _credit(self) -> list[Write]:
        """Lots that roll over, settle debt, are voided and refunded; in half of the seeds."""
        draw = self._crediting
        writes = []
        granted: dict[str, list[str]] = {}
        for number in range(skewed(draw, 3, 15) if draw.random() < 0.5 else 0):
            owner = draw.randrange(len(self._work.customers))
            account = self._work.customers[owner]
            amount = decimal(max(self._work.spend_pico[owner], 10**10) * draw.randint(1, 30) // 100)
            body: dict[str, Any] = {"account": account, "command_key": f"credit-{number}", "currency": "USD"}
            kind = draw.choice(["grant", "void_lot", "refund_lot"])
            if kind == "grant":
                body |= {"kind": kind, "lot": f"credit-{number}", "lot_kind": "promo", "amount": amount, "priority": 1}
                granted.setdefault(account, []).extend([body["lot"], f"{body['lot']}~carried"])
                body |= {"pays_debt": draw.random() < 0.5, "rollover": {"percent": draw.choice([50, 100]), "days": 1}}
            else:
                body |= {"kind": kind, "lot": draw.choice(["welcome", "prepaid", *granted.get(account, ())])}
                body["amount"] = None if kind == "void_lot" and draw.random() < 0.5 else amount
            ends_s = draw.uniform(0.05, 0.5 * self.seconds)
            writes.append(self._write(draw.uniform(0, self.seconds), body, ends_s, None, []))
        return writes

    def _term(self, number: int, at_s: float, body: dict[str, Any], asking: Sequence[str]) -> Write:
        """With an account that asks, a price is agreed ahead: one that begins at once may make dearer what an owner approves
        that has not read of it (engine/README.md, "Agreed prices"), and its wallet may not fall below zero."""
        home = self._home(body["account"])
        body = body | {"command_key": f"term-{number}"}
        ahead = body["kind"] == "set_price" and body["account"] in asking

        def make(now_us: int) -> bytes:
            return self._sealed(home, body | ({"from_us": now_us + self._unread_us()} if ahead else {}))

        return Write(at_s, body["account"].encode(), home, make)

    def _deal(self, number: int, at_s: float, body: dict[str, Any], ahead: Ahead) -> Write:
        home = self._home(body["account"])
        body = body | {"command_key": f"deal-{number}"}

        def make(now_us: int) -> bytes:
            instants = {
                name: now_us + int(share * self.seconds * self.pace * SECOND_US) for name, share in ahead.items()
            }
            return self._sealed(home, body | instants)

        return Write(at_s, body["account"].encode(), home, make)

    def _command(self, number: int, owner: int) -> dict[str, Any]:
        account = self._work.customers[owner]
        spend = max(self._work.spend_pico[owner], 10**10)
        body: dict[str, Any] = {"account": account, "command_key": f"more-{number}"}
        kind = self._random.choice(
            ["grant", "grant", "grant", "set_cap", "set_cap", "set_rule", "set_rule", "open_account"]
        )
        amount = decimal(spend * self._random.randint(1, 60) // 100)
        if kind == "grant":
            body |= {"kind": kind, "lot": f"more-{number}", "amount": amount, "currency": "USD"}
            body |= {"lot_kind": self._random.choice(["paid", "promo", "commit", "refund"])}
            body |= {"priority": self._random.choice([5, 15, 25, 100])}
        elif kind == "set_cap":
            body |= {"kind": kind, "cap": "monthly", "amount": amount, "currency": "USD"}
            if self._random.random() < 0.6:
                window = self._random.choice(["hour", "day", "week", "rolling", "first_use"])
                body |= {"cap": f"window-{number % 2}", "window": window}
                if window in ("rolling", "first_use"):
                    body |= {"length_s": self._random.choice([60, 3_600, 86_400])}
                if self._random.random() < 0.3:
                    body |= {"currency": None, "meter": "output_tokens", "amount": str(self._random.randint(1, 9_999))}
        elif kind == "set_rule":
            low = {"measure": "balance", "threshold": decimal(0), "clear": amount}
            cap = self._random.choice(["monthly", "window-0", "window-1"])
            half = {"measure": "cap_percent", "cap": cap, "percent": self._random.randint(1, 120)}
            body |= {"kind": kind, "rule": f"rule-{number % 3}", "on": self._random.choice([low, half])}
        else:
            body |= {"kind": kind, "plan": "starter"}
        return body

    def _write(
        self, at_s: float, body: dict[str, Any], ends_s: float, begins_s: float | None, kept: list[bytes]
    ) -> Write:
        home = self._home(body["account"])

        def make(now_us: int) -> bytes:
            command = dict(body)
            if command["kind"] == "grant":
                command["expires_us"] = now_us + int(ends_s * self.pace * SECOND_US)
                if begins_s is not None:
                    command["effective_us"] = now_us + int(begins_s * self.pace * SECOND_US)
            kept.append(self._sealed(home, command))
            return kept[0]

        return Write(at_s, body["account"].encode(), home, make)

    def _unread_us(self) -> int:
        """How long ahead what makes a price dearer has to be told: no owner that still approves has not read it by then."""
        return max(MARKER_AHEAD_US, int(0.2 * self.seconds * self.pace * SECOND_US))

    def _versions(self) -> list[Write]:
        if self._random.random() < 0.3:
            return []
        at_s = self._random.uniform(0, self.seconds)
        ahead_us = self._unread_us()

        def write(partition: int) -> Write:
            def make(now_us: int) -> bytes:
                marker = {"kind": "catalogue", "version": 2, "effective_us": now_us + ahead_us}
                return self._sealed(partition, marker)

            return Write(at_s, None, partition, make)

        return [write(partition) for partition in range(self.partitions)]
