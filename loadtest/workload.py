"""The demo's traffic: what a fleet of gateways would report, with the faults that real fleets have.

Token counts and the rhythm of arrivals come from the Azure LLM inference trace 2023 (conversation part; Patel et
al., "Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024; CC-BY-4.0), looped with fresh
ids. Without the trace a seeded generator draws from quantiles measured on it. The trace names no customers: they are
drawn by a Zipf law. Everything follows from the seed, except the times, which the driver stamps as it sends.
"""

import csv
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from msgspec import Struct

from loadtest.oracle.catalogue import Version, version_of
from loadtest.oracle.prices import half_even
from loadtest.oracle.records import partition_of

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
EVENTS_MAX = 10_000_000
CUSTOMERS_MAX = 100_000
TRACE_ROWS_MAX = 5_000_000

EVENT_TYPE = "llm.request"
MODELS = ("atlas-large", "atlas-small", "atlas-mini")
MODEL_WEIGHTS = (0.2, 0.5, 0.3)
PLANS = ("starter", "growth")
GATEWAYS = 4
ZIPF_EXPONENT = 1.0

OUT_OF_ORDER_SHARE = 0.05
OUT_OF_ORDER_MAX_S = 4.0
DUPLICATE_SHARE = 0.03
DUPLICATE_DISTANCE_MAX = 300  # events between the first sending and the second
MALFORMED_SHARE = 0.001
WRONG_PARTITION_SHARE = 0.0002
KEYLESS_SHARE = 0.0002
CONFLICT_SHARE = 0.00005
FORGED_SHARE = 0.00005
FEW_MIN = 4  # of each of the rare kinds, however short the run

# The trace's shape: values at these percentiles, measured on its 19,366 requests. Gaps are in units of their mean
# (0.181 s); at most twice as bursty as a Poisson process second by second, so they are drawn independently.
PERCENTILES = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.9, 100)
INPUT_TOKENS = (2, 29, 181, 207, 387, 403, 703, 1020, 1071, 1130, 1315, 2735, 4083, 4142, 6179, 14050)
OUTPUT_TOKENS = (7, 16, 41, 54, 77, 91, 103, 129, 177, 384, 400, 424, 451, 601, 954, 1000)
GAPS = (0.0, 0.003, 0.035, 0.089, 0.202, 0.336, 0.483, 0.655, 0.878, 1.181, 1.597, 2.326, 3.126, 4.92, 7.804, 23.86)


class Shape(Struct, frozen=True):
    """How a workload departs from an even flow; the defaults are the demo's."""

    zipf: float = ZIPF_EXPONENT  # of customers; 0 makes them all alike
    hot_share: float = 0.0  # of the events, those of one customer
    burst_factor: float = 1.0  # in bursts, so many times the mean rate
    burst_every_s: float = 10.0  # each takes a tenth of this
    duplicate_share: float = DUPLICATE_SHARE
    late_share: float = 0.0  # events that tell of up to `late_max_s` ago
    late_max_s: float = 3_600.0

    def weights(self, customers: int) -> "np.ndarray[Any, Any]":
        """The share of each rank. Raises ValueError."""
        if not (0 <= self.hot_share < 1 and 0 <= self.late_share <= 1 and 0 <= self.duplicate_share <= 1):
            raise ValueError("hot_share must lie in [0, 1), late_share and duplicate_share in [0, 1]")
        shares = 1 / np.arange(1, customers + 1) ** self.zipf
        shares /= shares.sum()
        if self.hot_share and customers > 1:
            shares[1:] *= (1 - self.hot_share) / shares[1:].sum()
            shares[0] = self.hot_share
        return shares

    def burst(self, at_s: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        """The same arrivals, of which `burst_factor` tenths fall into the first tenth of each `burst_every_s`."""
        if not 1 <= self.burst_factor <= 9:
            raise ValueError(f"burst_factor is {self.burst_factor}: give 1 to 9")
        if self.burst_factor == 1:
            return at_s
        inside, part = self.burst_factor / 10, 0.1
        cycle, phase = np.divmod(at_s / self.burst_every_s, 1.0)
        warped = np.where(phase < inside, phase * part / inside, part + (phase - inside) * (1 - part) / (1 - inside))
        return (cycle + warped) * self.burst_every_s


class Send(NamedTuple):
    """One record to produce, `at_s` seconds after the start.

    `render(time_us)` gives the value (None: no value) for the event time that the driver stamps; call it once, in
    the order of the iteration, because a duplicate repeats the bytes of what was rendered before. `partition` None
    lets the key decide. Where `seal_partition` is not None, `render` gives the body of a control record: seal it
    for that partition (a forged one is then sent to another)."""

    at_s: float
    kind: str  # event, wrong_partition, keyless, duplicate, conflict, malformed.<name>, forged.<name>, top_up
    key: bytes | None
    partition: int | None
    seal_partition: int | None
    render: Callable[[int], bytes | None]


class Call(NamedTuple):
    """One request of a customer, as the trace and the draws have it."""

    at_s: float
    customer: str
    model: str
    input_tokens: int
    output_tokens: int


class Bad(NamedTuple):
    """A kind of malformed event: the reason it is dead-lettered for, and how a good one is spoilt."""

    reason: str
    spoil: Callable[[dict[str, Any], int], bytes | None]
    key: bytes | None = None  # None: the customer's own


def cloud_time(time_us: int) -> str:
    """RFC 3339, to the microsecond."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    return moment.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _attribute(name: str, value: object) -> Callable[[dict[str, Any], int], bytes]:
    return lambda event, _: orjson.dumps(event | {name: value})


def _without(name: str) -> Callable[[dict[str, Any], int], bytes]:
    return lambda event, _: orjson.dumps({key: value for key, value in event.items() if key != name})


def _data(**fields: object) -> Callable[[dict[str, Any], int], bytes]:
    return lambda event, _: orjson.dumps(event | {"data": event["data"] | fields})


def _raw_tokens(text: bytes) -> Callable[[dict[str, Any], int], bytes]:
    """The input tokens as literal text, for what no JSON writer would write."""
    return lambda event, _: _data(input_tokens="@")(event, 0).replace(b'"@"', text)


def _without_data(name: str) -> Callable[[dict[str, Any], int], bytes]:
    return lambda event, _: orjson.dumps(
        event | {"data": {key: value for key, value in event["data"].items() if key != name}}
    )


def _shifted(shift_us: int) -> Callable[[dict[str, Any], int], bytes]:
    return lambda event, time_us: orjson.dumps(event | {"time": cloud_time(time_us + shift_us)})


def _unspoilt(event: dict[str, Any], _: int) -> bytes:
    return orjson.dumps(event)


STRANGER = b"cus_unknown"

MALFORMED: dict[str, Bad] = {
    "broken_json": Bad("malformed", lambda event, _: orjson.dumps(event)[:-7]),
    "not_an_object": Bad("malformed", lambda event, _: orjson.dumps([event])),
    "not_utf8": Bad("malformed", lambda event, _: orjson.dumps(event).replace(b"gateway", b"gat\xffway")),
    "no_value": Bad("malformed", lambda event, _: None),
    "empty_value": Bad("malformed", lambda event, _: b""),
    "no_id": Bad("malformed", _without("id")),
    "empty_id": Bad("malformed", _attribute("id", "")),
    "long_id": Bad("malformed", _attribute("id", "i" * 257)),
    "nul_in_id": Bad("malformed", _attribute("id", "req\0")),
    "half_a_surrogate": Bad("malformed", lambda event, _: _attribute("id", "@")(event, 0).replace(b"@", b"\\ud800")),
    "no_source": Bad("malformed", _without("source")),
    "no_type": Bad("malformed", _without("type")),
    "old_specversion": Bad("malformed", _attribute("specversion", "0.3")),
    "no_data": Bad("malformed", _without("data")),
    "data_is_text": Bad("malformed", _attribute("data", "model=atlas-mini")),
    "many_fields": Bad("malformed", _data(**{f"field_{number}": number for number in range(62)})),
    "nan": Bad("malformed", _raw_tokens(b"NaN")),
    "infinity": Bad("malformed", _raw_tokens(b"-Infinity")),
    "key_not_utf8": Bad("malformed", _unspoilt, b"cus_\xff\xfe"),
    "empty_key": Bad("malformed", _unspoilt, b""),
    "long_key": Bad("malformed", _unspoilt, b"c" * 257),
    "too_large": Bad("too_large", _data(note="x" * 65_536)),
    "unknown_customer": Bad("unknown_account", _unspoilt, STRANGER),
    "no_time": Bad("missing_time", _without("time")),
    "ahead": Bad("too_far_ahead", _shifted(600 * SECOND_US)),
    "old": Bad("too_old", _shifted(-36 * DAY_US)),
    "unknown_type": Bad("no_meter", _attribute("type", "llm.refund")),
    "no_tokens": Bad("bad_quantity", _without_data("input_tokens")),
    "negative_tokens": Bad("bad_quantity", _data(input_tokens=-1)),
    "tokens_as_truth": Bad("bad_quantity", _data(input_tokens=True)),
    "tokens_as_words": Bad("bad_quantity", _data(input_tokens="many")),
    "huge_tokens": Bad("bad_quantity", _raw_tokens(b"1" + b"0" * 18)),
    "endless_tokens": Bad("malformed", _raw_tokens(b"9" * 5000)),
    "exponent": Bad("bad_quantity", _raw_tokens(b"1e3")),
    "ten_decimals": Bad("bad_quantity", _raw_tokens(b"1.0000000001")),
    "no_model": Bad("bad_dimension", _without_data("model")),
    "model_is_a_number": Bad("bad_dimension", _data(model=7)),
    "long_model": Bad("bad_dimension", _data(model="m" * 129)),
    "unknown_model": Bad("no_price", _data(model="atlas-unheard-of")),
}

FORGED = ("other_key", "truncated", "unsigned", "copied")


class Extra(NamedTuple):
    """Something sent right behind the base event `after`."""

    after: int
    kind: str
    base: int  # the event it is made from; for a top-up, the customer


class Workload:
    """Iterate it for the records of the run, in order of `at_s`; the same arguments give the same records.

    `events` counts the distinct usage events; duplicates, conflicts, malformed and forged records and top-ups come
    on top; of each rare kind there are `rare` at least. `catalogue`, the JSON document or what was read of it, sizes
    wallets and caps so that about a third of the customers run dry and cross their cap. Raises ValueError for an
    argument or a trace that cannot be used."""

    def __init__(
        self,
        seed: int,
        events: int,
        customers: int,
        trace_path: Path | None,
        duration_s: float,
        *,
        catalogue: Mapping[str, Any] | Version,
        partitions: int = 8,
        prefix: str = "cus",
        rare: int = FEW_MIN,
        shape: Shape | None = None,
    ) -> None:
        if not 1 <= events <= EVENTS_MAX:
            raise ValueError(f"events is {events}: give 1 to {EVENTS_MAX}")
        if not 1 <= customers <= CUSTOMERS_MAX:
            raise ValueError(f"customers is {customers}: give 1 to {CUSTOMERS_MAX}")
        if not duration_s > 0 or partitions < 1:
            raise ValueError(f"duration_s is {duration_s}, partitions {partitions}: both must be above 0")
        self.seed, self.events, self.duration_s, self.partitions = seed, events, duration_s, partitions
        self._rare = rare
        self._shape = shape = shape or Shape()
        self.customers = [f"{prefix}_{number:04d}" for number in range(1, customers + 1)]
        self.plans = [PLANS[number % len(PLANS)] for number in range(customers)]
        self._keys = [customer.encode() for customer in self.customers]
        source = np.random.default_rng(seed)

        if trace_path is None:
            self.origin = "no trace found: a seeded generator with the shape of the Azure LLM 2023 conversation trace"
            gaps = self._drawn(source, GAPS)
            self._input = np.rint(self._drawn(source, INPUT_TOKENS)).astype(np.int64)
            self._output = np.rint(self._drawn(source, OUTPUT_TOKENS)).astype(np.int64)
        else:
            trace_gaps, tokens_in, tokens_out = read_trace(trace_path)
            loops = -(-events // len(tokens_in))
            self.origin = f"{trace_path.name}: {len(tokens_in):,} requests, looped {events / len(tokens_in):.1f} times"
            gaps = np.tile(trace_gaps, loops)[:events]
            self._input, self._output = np.tile(tokens_in, loops)[:events], np.tile(tokens_out, loops)[:events]
        arrivals = np.cumsum(gaps)
        self._at_s = shape.burst(arrivals * (duration_s / max(float(arrivals[-1]), 1e-9)))

        ranked = source.permutation(customers)
        self._customer = ranked[source.choice(customers, size=events, p=shape.weights(customers))]
        self._model = source.choice(len(MODELS), size=events, p=MODEL_WEIGHTS)
        set_back = source.random(events) < OUT_OF_ORDER_SHARE
        self._set_back_us = np.where(set_back, source.uniform(0.1, OUT_OF_ORDER_MAX_S, events) * SECOND_US, 0).astype(
            np.int64
        )
        if shape.late_share:
            late = source.random(events) < shape.late_share
            self._set_back_us[late] = (source.uniform(0.0, shape.late_max_s, events) * SECOND_US).astype(np.int64)[late]
        few = source.permutation(events)
        wrong = self._few(WRONG_PARTITION_SHARE) if partitions > 1 else 0
        self._wrong_partition = set(few[:wrong].tolist())
        self._keyless = set(few[wrong : wrong + self._few(KEYLESS_SHARE)].tolist())
        self._elsewhere = source.integers(0, partitions, events)

        self.spend_pico = self._spend(catalogue)
        self._draw_wallets(source)
        self._extras = self._draw_extras(source)

    # ---- draws

    def _few(self, share: float) -> int:
        return min(self.events, max(self._rare, round(self.events * share)))

    def _drawn(self, source: np.random.Generator, table: tuple[float, ...]) -> "np.ndarray[Any, Any]":
        return np.interp(source.random(self.events) * 100, PERCENTILES, table)

    def _spend(self, catalogue: Mapping[str, Any] | Version) -> list[int]:
        """What each customer's good events would owe in one period, in pico."""
        version = version_of(1, catalogue)
        totals = np.zeros((3, len(MODELS), len(self.customers)), dtype=np.int64)
        for row, values in enumerate((self._input, self._output, np.ones(self.events, dtype=np.int64))):
            np.add.at(totals[row], (self._model, self._customer), values)
        rows = {"input_tokens": 0, "output_tokens": 1, None: 2}
        spend = []
        for number, plan in enumerate(self.plans):
            quantities: dict[str, int] = {}
            for meter in (each for each in version.meters if each.event_type == EVENT_TYPE):
                for position, model in enumerate(MODELS):
                    cell = tuple({"model": model}[name] for name in meter.group_by)
                    price = version.price_of(plan, meter, cell)
                    if price is None:
                        raise ValueError(f"plan {plan}: no price of meter {meter.name} takes {model}; add one")
                    count = int(totals[rows[meter.field], position, number])
                    quantities[price.name] = quantities.get(price.name, 0) + count * 10**9
            prices = version.plans[plan].prices
            owed = sum(prices[name].owed(quantity, quantity, version.grains) for name, quantity in quantities.items())
            spend.append(half_even(owed, version.grains))
        return spend

    def _draw_wallets(self, source: np.random.Generator) -> None:
        count = len(self.customers)
        self._temper = source.permutation(np.arange(count) % 3)  # 0: runs dry, 1: comes near its cap, 2: has plenty
        self._promo_ends = np.where(source.random(count) < 0.5, source.uniform(0.3, 0.8, count), np.inf)
        self._paid_starts = np.where(source.random(count) < 0.1, source.uniform(0.1, 0.4, count), 0)
        self._paid_ends = source.random(count) < 0.5
        tops_up = (self._temper == 0) & (source.random(count) < 0.4)
        self._top_up_at = np.where(tops_up, source.uniform(0.4, 0.7, count), np.inf)

    def _draw_extras(self, source: np.random.Generator) -> list[Extra]:
        events = self.events
        extras = []
        for kind, count in (
            ("duplicate", round(events * self._shape.duplicate_share)),
            ("conflict", self._few(CONFLICT_SHARE)),
        ):
            chosen = source.choice(events, size=count, replace=False).tolist()
            after = source.integers(1, DUPLICATE_DISTANCE_MAX, count).tolist()
            extras += [Extra(base + later, kind, base) for base, later in zip(chosen, after, strict=True)]
        names = list(MALFORMED)
        first = int(source.integers(len(names)))  # then in turn, so that a long run holds every kind
        for number, index in enumerate(source.integers(0, events, self._few(MALFORMED_SHARE)).tolist()):
            extras.append(Extra(index, f"malformed.{names[(first + number) % len(names)]}", index))
        for number, index in enumerate(source.integers(0, events, self._few(FORGED_SHARE)).tolist()):
            if FORGED[number % len(FORGED)] != "copied" or self.partitions > 1:
                extras.append(Extra(index, f"forged.{FORGED[number % len(FORGED)]}", index))
        arrivals = self._at_s.tolist()
        for customer in np.flatnonzero(np.isfinite(self._top_up_at)).tolist():
            at_s = float(self._top_up_at[customer]) * self.duration_s
            extras.append(Extra(bisect_left(arrivals, at_s), "top_up", customer))
        return sorted(Extra(min(extra.after, events - 1), *extra[1:]) for extra in extras)

    # ---- commands

    def setup(self, start_us: int) -> list[dict[str, Any]]:
        """The bodies of the commands that go before the traffic; `start_us` is when the traffic starts.

        Per customer: the account, a promotional and a paid lot, a monthly cap, and rules at 80 % and 100 % of the
        cap and at a tenth of the wallet. Send each to the partition of its `account`."""
        bodies = []
        for number in range(len(self.customers)):
            bodies += self._setup_of(number, start_us)
        return bodies

    def _setup_of(self, number: int, start_us: int) -> list[dict[str, Any]]:
        spend = max(self.spend_pico[number], 10**10)
        wallet_percent, cap_percent = ((55, 70), (110, 110), (400, 400))[int(self._temper[number])]
        wallet, cap = spend * wallet_percent // 100, spend * cap_percent // 100
        promo = {"lot": "welcome", "lot_kind": "promo", "amount": decimal(wallet * 3 // 10), "priority": 10}
        if np.isfinite(self._promo_ends[number]):
            promo["expires_us"] = start_us + round(float(self._promo_ends[number]) * self.duration_s * SECOND_US)
        else:
            promo["expires_us"] = start_us + 30 * DAY_US
        paid = {"lot": "prepaid", "lot_kind": "paid", "amount": decimal(wallet - wallet * 3 // 10), "priority": 20}
        if self._paid_starts[number]:
            paid["effective_us"] = start_us + round(float(self._paid_starts[number]) * self.duration_s * SECOND_US)
        if self._paid_ends[number]:
            paid["expires_us"] = start_us + 365 * DAY_US
        commands: list[dict[str, Any]] = [
            {"kind": "open_account", "plan": self.plans[number]},
            {"kind": "grant", "currency": "USD"} | promo,
            {"kind": "grant", "currency": "USD"} | paid,
            {"kind": "set_cap", "cap": "monthly", "amount": decimal(cap), "currency": "USD"},
            {"kind": "set_rule", "rule": "cap-80", "on": {"measure": "cap_percent", "cap": "monthly", "percent": 80}},
            {"kind": "set_rule", "rule": "cap-100", "on": {"measure": "cap_percent", "cap": "monthly", "percent": 100}},
            {
                "kind": "set_rule",
                "rule": "low-balance",
                "on": {"measure": "balance", "threshold": decimal(wallet // 10)},
            },
        ]
        account = self.customers[number]
        return [
            command | {"account": account, "command_key": f"setup-{account}-{step}"}
            for step, command in enumerate(commands, start=1)
        ]

    def _top_up(self, number: int) -> dict[str, Any]:
        account = self.customers[number]
        amount = max(self.spend_pico[number], 10**10) * 4 // 10
        return {
            "kind": "grant",
            "account": account,
            "command_key": f"top-up-{account}",
            "lot": "top-up",
            "lot_kind": "paid",
            "amount": decimal(amount),
            "currency": "USD",
            "priority": 30,
        }

    # ---- requests

    def calls(self) -> Iterator[Call]:
        """The distinct events as the requests behind them, in order of `at_s`."""
        rows = zip(self._at_s, self._customer, self._model, self._input, self._output, strict=True)
        for at_s, customer, model, tokens_in, tokens_out in rows:
            yield Call(float(at_s), self.customers[customer], MODELS[model], int(tokens_in), int(tokens_out))

    # ---- records

    def __iter__(self) -> Iterator[Send]:
        repeated = {extra.base for extra in self._extras if extra.kind == "duplicate"}
        kept: dict[int, bytes] = {}
        extras = iter(self._extras)
        extra = next(extras, None)
        for index in range(self.events):
            yield self._send(index, kept if index in repeated else None)
            while extra is not None and extra.after == index:
                yield self._send_extra(extra, float(self._at_s[index]), kept)
                extra = next(extras, None)

    def _event(self, index: int, time_us: int) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": f"req-{self.seed}-{index}",
            "source": f"gateway-{index % GATEWAYS + 1}",
            "type": EVENT_TYPE,
            "subject": self.customers[self._customer[index]],
            "time": cloud_time(time_us - int(self._set_back_us[index])),
            "data": {
                "model": MODELS[self._model[index]],
                "input_tokens": int(self._input[index]),
                "output_tokens": int(self._output[index]),
            },
        }

    def _address(self, index: int) -> tuple[str, bytes | None, int | None]:
        """(kind, key, partition) of a base event; a duplicate goes the same way."""
        key = self._keys[self._customer[index]]
        if index in self._wrong_partition:
            step = 1 + int(self._elsewhere[index]) % (self.partitions - 1)
            return "wrong_partition", key, (partition_of(key, self.partitions) + step) % self.partitions
        if index in self._keyless:
            return "keyless", None, int(self._elsewhere[index])
        return "event", key, None

    def _send(self, index: int, keep: dict[int, bytes] | None) -> Send:
        kind, key, partition = self._address(index)

        def render(time_us: int) -> bytes:
            value = orjson.dumps(self._event(index, time_us))
            if keep is not None:
                keep[index] = value
            return value

        return Send(float(self._at_s[index]), kind, key, partition, None, render)

    def _send_extra(self, extra: Extra, at_s: float, kept: dict[int, bytes]) -> Send:
        index = extra.base
        if extra.kind == "top_up":
            payer = self._keys[index]
            home = partition_of(payer, self.partitions)
            return Send(at_s, extra.kind, payer, home, home, lambda _: orjson.dumps(self._top_up(index)))
        _, key, partition = self._address(index)
        if extra.kind == "duplicate":
            return Send(at_s, extra.kind, key, partition, None, lambda _: kept.pop(index))
        if extra.kind == "conflict":
            return Send(at_s, extra.kind, key, partition, None, lambda time_us: self._conflict(index, time_us))
        family, name = extra.kind.split(".")
        if family == "forged":
            return self._forged(name, at_s, index)
        bad = MALFORMED[name]
        payer = self._keys[self._customer[index]] if bad.key is None else bad.key

        def render(time_us: int) -> bytes | None:
            event = self._event(index, time_us)
            return bad.spoil(event | {"id": f"bad-{event['id']}"}, time_us)

        return Send(at_s, extra.kind, payer, partition_of(payer, self.partitions), None, render)

    def _conflict(self, index: int, time_us: int) -> bytes:
        event = self._event(index, time_us)
        event["data"]["output_tokens"] += 1
        return orjson.dumps(event)

    def _forged(self, name: str, at_s: float, index: int) -> Send:
        """A gift that nobody with the control key has signed for the partition it is sent to."""
        number = int(self._customer[index])
        key = self._keys[number]
        partition = partition_of(key, self.partitions)
        gift = self._top_up(number) | {"command_key": f"forged-{index}", "lot": f"forged-{index}", "amount": "1000000"}
        body = orjson.dumps(gift)
        if name == "copied":
            other = (partition + 1) % self.partitions
            return Send(at_s, f"forged.{name}", key, partition, other, lambda _: body)
        values = {
            "other_key": b"TGC1" + bytes((index + step) % 251 for step in range(32)) + body,
            "truncated": b"TGC1" + body[:20],
            "unsigned": b"TGC1" + body,
        }
        return Send(at_s, f"forged.{name}", key, partition, None, lambda _: values[name])


def decimal(pico: int) -> str:
    """Pico-units as decimal text of whole units."""
    return f"{pico // 10**12}.{pico % 10**12:012d}"


def read_trace(path: Path) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """(gap before each request in seconds, input tokens, output tokens). ValueError names the file and line."""
    times: list[float] = []
    tokens_in: list[int] = []
    tokens_out: list[int] = []
    with path.open(newline="") as lines:
        rows = csv.DictReader(lines)
        columns = {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}
        if not columns <= set(rows.fieldnames or ()):
            raise ValueError(f"{path}:1: needs the columns {', '.join(sorted(columns))}, has {rows.fieldnames}")
        for row in rows:
            if len(times) >= TRACE_ROWS_MAX:
                raise ValueError(f"{path}:{rows.line_num}: more than {TRACE_ROWS_MAX} requests; cut the file")
            try:
                time = datetime.fromisoformat(row["TIMESTAMP"])
                counts = int(row["ContextTokens"]), int(row["GeneratedTokens"])
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}:{rows.line_num}: {error}; expected a time and two whole numbers") from error
            if min(counts) < 0:
                raise ValueError(f"{path}:{rows.line_num}: token counts must not be negative")
            times.append(time.replace(tzinfo=UTC).timestamp())
            tokens_in.append(counts[0])
            tokens_out.append(counts[1])
    if not times:
        raise ValueError(f"{path}: holds no requests")
    gaps = np.maximum(np.diff(np.array(times)), 0)
    # The first request of a loop follows the last one of the loop before it at the mean distance.
    gaps = np.concatenate([[float(gaps.mean()) if len(gaps) else 1.0], gaps])
    return gaps, np.array(tokens_in, dtype=np.int64), np.array(tokens_out, dtype=np.int64)
