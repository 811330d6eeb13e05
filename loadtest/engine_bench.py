"""What the rating core costs: `make bench-engine`.

    python -m loadtest.engine_bench [--events 100000] [--rounds 5] [--customers 1000000] [--report build/bench-engine.json]

One process, one core, no servers. In turns, over the same bytes: a bare loop that decodes each usage event into a typed
record, and the whole core. To the core belong: decoding, the memory of rated events, two graduated meters, a wallet of
three lots, two caps, three rules, the rated lines, and a checkpoint's cut every few thousand records, encoded.
`ratio` is the core's events per second over the bare loop's: the median of the rounds. Set-up is not counted.
`profile_us` is where the core's time goes: each step by itself over all events, in microseconds of an event; `rest` is
what leads from one to the other. The fastest of the rounds each, so that they can be added up. `libraries_us` is what of
it the calls of msgspec and xxhash take that nobody could spare: no Python around them could be faster than that.

Then the same customer under many names, idle: what its snapshot has (`bytes_per_customer`), what the process holds for
it (`resident_bytes_per_customer`), and what it takes once it is touched (`live_bytes_per_customer`).
"""

import argparse
import gc
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
import orjson
import xxhash

from actors.assembly import GC_THRESHOLDS
from engine.catalog import PriceBook, load_catalogue
from engine.dedup import Dedup, identity
from engine.events import CatalogueMarker, fingerprint, parse_usage, seal
from engine.metering import Metering, scopes_of
from engine.outcomes import AccountRow, RatedEvent, RatedLine, rated_lines
from engine.partition import Foreseen, Partition, foresee
from engine.snapshot import decode_account, encode_account
from loadtest.machine import machine, resident

KEY: Final = b"control key of the engine's bench"
TOPIC: Final = "usage"
EVENT_TYPE: Final = "llm.request"
MODELS: Final = ("atlas-large", "atlas-small", "atlas-mini")
START_MS: Final = 1_788_264_000_000  # 2026-09-01T12:00:00Z
CUT_EVERY: Final = 5_000  # records between two checkpoints
AHEAD: Final = 250  # records that a shard reads ahead of the fold
ENCODED_AT_ONCE: Final = 50
LIVE_MAX: Final = 20_000  # customers that are touched to see what a live one takes

TIERS: Final = [
    {"up_to": "1000000", "amount": "3", "per": "1000000"},
    {"up_to": "20000000", "amount": "2.5", "per": "1000000"},
    {"amount": "2", "per": "1000000"},
]
CATALOGUE: Final = orjson.dumps(
    {
        "meters": {
            name: {"event_type": EVENT_TYPE, "aggregation": "sum", "field": name, "group_by": ["model"]}
            for name in ("input_tokens", "output_tokens")
        },
        "plans": {
            "plan": {
                "currency": "USD",
                "prices": {
                    name: {"meter": name, "model": "graduated", "tiers": TIERS}
                    for name in ("input_tokens", "output_tokens")
                },
            }
        },
    }
)


Say = Callable[[str], None]
_Made = TypeVar("_Made")


class BareEvent(msgspec.Struct):
    """What the bare loop decodes an event into."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str
    data: dict[str, Any]


def commands_of(account: str) -> list[dict[str, Any]]:
    """Open, three lots, two caps, three rules. Nothing of it is reached by the events of a run."""
    lots: list[tuple[str, str, int]] = [("paid-1", "paid", 100), ("promo", "promo", 50), ("paid-2", "paid", 200)]
    bodies: list[dict[str, Any]] = [{"kind": "open_account", "plan": "plan"}]
    bodies += [
        {"kind": "grant", "lot": lot, "lot_kind": kind, "amount": "1000", "currency": "USD", "priority": priority}
        for lot, kind, priority in lots
    ]
    bodies.append({"kind": "set_scope", "scope": "team"})
    bodies.append({"kind": "set_cap", "cap": "monthly", "amount": "2000", "currency": "USD"})
    bodies.append({"kind": "set_cap", "cap": "team", "amount": "1500", "currency": "USD", "scope": "team"})
    bodies += [
        {"kind": "set_rule", "rule": "cap-80", "on": {"measure": "cap_percent", "cap": "monthly", "percent": 80}},
        {"kind": "set_rule", "rule": "team-90", "on": {"measure": "cap_percent", "cap": "team", "percent": 90}},
        {"kind": "set_rule", "rule": "low", "on": {"measure": "balance", "threshold": "10"}},
    ]
    return [body | {"account": account, "command_key": f"{number}"} for number, body in enumerate(bodies)]


def event(number: int, account: str, draw: random.Random) -> bytes:
    """A usage event in the account's team, at the start of the run."""
    return orjson.dumps(
        {
            "specversion": "1.0",
            "id": f"request-{number}",
            "source": "gateway-1",
            "type": EVENT_TYPE,
            "time": "2026-09-01T12:00:00.000000Z",
            "subject": account,
            "scope": "team",
            "data": {
                "model": draw.choice(MODELS),
                "input_tokens": draw.randrange(1, 8_000),
                "output_tokens": draw.randrange(1, 1_500),
                "request_id": f"chatcmpl-{number:032x}",
            },
        }
    )


def prepared(accounts: int) -> Partition:
    """A partition whose customers are set up, and whose checkpoint has been taken."""
    fold = Partition(0, 1, TOPIC, KEY, {1: load_catalogue(1, CATALOGUE)})
    bodies = [msgspec.json.encode(CatalogueMarker(1, 0))]
    bodies += [orjson.dumps(body) for number in range(accounts) for body in commands_of(name_of(number))]
    for offset, body in enumerate(bodies):
        fold.apply(offset, START_MS, None, seal(KEY, TOPIC, 0, body))
    assert fold.counts.get("applied", 0) == len(bodies) - 1, fold.counts
    cut_off(fold)
    return fold


def name_of(number: int) -> str:
    """An account id, as long as they commonly are."""
    return f"cus_{number:016d}"


def cut_off(fold: Partition) -> None:
    """Take a checkpoint, as a shard does: what changed is encoded, and what was put out is taken away."""
    cut = fold.begin_cut()
    while not cut.encode(ENCODED_AT_ONCE):
        pass
    fold.end_cut()
    fold.outputs = type(fold.outputs)()


# ----------------------------------------------------------------------------------------------------------- the pace


def decode_bare(values: list[bytes]) -> float:
    """Seconds of processor time to decode each of them and to look at one field."""
    decode = msgspec.json.Decoder(BareEvent).decode
    began = time.process_time()
    for value in values:
        decode(value)
    return time.process_time() - began


class Rated(NamedTuple):
    """Seconds of processor time."""

    whole: float
    cuts: float  # of these


def rate(keys: list[bytes], values: list[bytes], accounts: int) -> Rated:
    """Rate them all in the whole core, checkpoints included."""
    fold = prepared(accounts)
    first = fold.counts["applied"] + 1
    gc.collect()
    began, cuts = time.process_time(), 0.0
    for start in range(0, len(values), AHEAD):
        chunk = range(start, min(start + AHEAD, len(values)))
        ahead: list[Foreseen] = [
            seen for at in chunk if (seen := foresee(first + at, keys[at], values[at])) is not None
        ]
        fold.expect(ahead)
        for at in chunk:
            fold.apply(first + at, START_MS, keys[at], values[at])
        if start // CUT_EVERY != (start + AHEAD) // CUT_EVERY:
            cut_began = time.process_time()
            cut_off(fold)
            cuts += time.process_time() - cut_began
    spent = time.process_time() - began
    assert fold.counts.get("rated") == len(values), fold.counts
    return Rated(spent, cuts)


def steps(keys: list[bytes], values: list[bytes], accounts: int) -> dict[str, float]:
    """Seconds of processor time of each step of the core by itself, over what the steps before it leave."""
    fold = prepared(accounts)
    log_us, spent = START_MS * 1000, dict[str, float]()

    def timed(name: str, made: Iterable[_Made]) -> list[_Made]:
        began = time.process_time()
        found = list(made)
        spent[name] = time.process_time() - began
        return found

    events = timed("decode", map(parse_usage, values))
    times = [log_us if each.time_us is None else each.time_us for each in events]
    marked = zip(keys, events, times, strict=True)
    marks = timed(
        "identify", ((identity(key.decode(), of.source, of.id), fingerprint(of, at_us)) for key, of, at_us in marked)
    )
    dedup = Dedup()

    def remembered() -> Iterator[None]:
        for number, (name, mark) in enumerate(marks):
            if number % AHEAD == 0:
                dedup.expect([each for each, _ in marks[number : number + AHEAD]])
            assert dedup.find(name) is None
            dedup.remember(name, mark, number, log_us)
            yield

    timed("remember", remembered())
    book = PriceBook()
    book.publish(0, load_catalogue(1, CATALOGUE))
    metering, held = Metering(book, KEY), []
    for key in keys:
        account = fold.account(key.decode())
        assert account is not None
        held.append(account)
    metered = timed("meter", (metering.metered(of.contract, each, None) for of, each in zip(held, events, strict=True)))
    charged = timed(
        "rate",
        (
            of.rate(each.time_us, each.usages, scopes_of(of.scopes, event, None), log_us)[0]
            for of, each, event in zip(held, metered, events, strict=True)
        ),
    )
    told = (
        RatedEvent(0, log_us, of.account, event.source, event.id, at_us, 1, "USD", lines, each.dimensions, plan="plan")
        for of, event, at_us, lines, each in zip(held, events, times, charged, metered, strict=True)
    )
    lines = timed("lines", (rated_lines(each, 0, 1) for each in told))
    spent["libraries"] = _libraries(values, [line for each in lines for line in each])
    return spent


def _libraries(values: list[bytes], lines: list[bytes]) -> float:
    """Seconds of processor time to decode these events, write their data again, hash both and write these lines."""
    read, write = msgspec.json.Decoder(BareEvent).decode, msgspec.json.Encoder().encode
    told = [msgspec.json.decode(line, type=RatedLine) for line in lines]
    began = time.process_time()
    for value in values:
        event = read(value)
        xxhash.xxh3_128_digest(value)
        xxhash.xxh3_64_digest(write(event.data))
    for each in told:
        write(each)
    return time.process_time() - began


def pace(events: int, accounts: int, rounds: int, say: Say) -> dict[str, Any]:
    """The bare loop and the core in turns, over the same events."""
    draw = random.Random(11)
    names = [name_of(draw.randrange(accounts)) for _ in range(events)]
    keys, values = [name.encode() for name in names], [event(at, name, draw) for at, name in enumerate(names)]
    bare, core, alone = [], [], []
    before = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)  # as a shard collects
    gc.freeze()
    try:
        for number in range(rounds):
            bare.append(decode_bare(values))
            rated = rate(keys, values, accounts)
            core.append(rated.whole)
            alone.append(steps(keys, values, accounts) | {"cut": rated.cuts})
            say(f"round {number + 1}: bare {bare[-1]:.3f} s, core {core[-1]:.3f} s")
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
    profile = {name: min(each[name] for each in alone) for name in alone[0]}
    libraries = profile.pop("libraries")
    profile["rest"] = max(0.0, min(core) - sum(profile.values()))
    ratios = [plain / whole for plain, whole in zip(bare, core, strict=True)]
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "events_per_s": round(events / statistics.median(core)),
        "bare_events_per_s": round(events / statistics.median(bare)),
        "profile_us": {name: round(spent * 1_000_000 / events, 2) for name, spent in profile.items()},
        "libraries_us": round(libraries * 1_000_000 / events, 2),
        "events": events,
        "accounts": accounts,
    }


# ---------------------------------------------------------------------------------------------------------- the memory


def idle_rows(customers: int) -> Iterator[AccountRow]:
    """One customer that has used every model, under many names."""
    fold = prepared(1)
    draw = random.Random(12)
    first = fold.counts["applied"] + 1
    for number in range(30):
        value = event(number, name_of(0), draw)
        fold.apply(first + number, START_MS, name_of(0).encode(), value)
    assert fold.counts["rated"] == 30, fold.counts
    book = PriceBook()
    book.publish(0, load_catalogue(1, CATALOGUE))
    pattern = fold.account(name_of(0))
    assert pattern is not None
    account = decode_account(encode_account(pattern), book)
    derived = account.derive()
    for number in range(customers):
        account.account = name_of(number)
        blob = encode_account(account)
        yield AccountRow(account.account, blob, account.wake_us(), derived.allocation.balance, 0, "USD")


def memory(customers: int) -> dict[str, Any]:
    """What idle customers take, and what a live one does."""
    empty = prepared(0)
    header = empty.header()
    fold = Partition(0, 1, TOPIC, KEY, {1: load_catalogue(1, CATALOGUE)})
    gc.collect()
    before = resident()["anonymous"]
    sizes = 0

    def counted() -> Iterator[AccountRow]:
        nonlocal sizes
        for row in idle_rows(customers):
            sizes += len(row.blob)
            yield row

    fold.load(header, counted(), [], [])
    gc.collect()
    idle = resident()["anonymous"]
    touched = min(customers, LIVE_MAX)
    draw = random.Random(13)
    for number in range(touched):
        fold.apply(number, START_MS, name_of(number).encode(), event(number, name_of(number), draw))
    assert fold.counts["rated"] == touched, fold.counts
    cut_off(fold)
    gc.collect()
    live = resident()["anonymous"]
    return {
        "customers": customers,
        "bytes_per_customer": round(sizes / customers),
        "resident_bytes_per_customer": round((idle - before) / customers),
        "live_bytes_per_customer": round((idle - before) / customers + (live - idle) / touched),
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000, help="usage events of a round (default 100000)")
    parser.add_argument(
        "--accounts", type=int, default=1_000, help="customers that they are spread over (default 1000)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of bare loop and core (default 5)")
    parser.add_argument("--customers", type=int, default=1_000_000, help="idle customers of the memory figures")
    parser.add_argument("--report", type=Path, default=Path("build/bench-engine.json"), help="where the figures go")
    asked = parser.parse_args(arguments)
    for name in ("events", "accounts", "rounds", "customers"):
        if getattr(asked, name) < 1:
            parser.error(f"--{name} must be at least 1")
    facts = machine()

    def say(line: str) -> None:
        print(line, file=sys.stderr)  # noqa: T201

    taken = memory(asked.customers)  # first: what the rounds leave behind would be counted
    figures = pace(asked.events, asked.accounts, asked.rounds, say) | taken
    asked.report.parent.mkdir(parents=True, exist_ok=True)
    asked.report.write_bytes(orjson.dumps({**figures, "machine": facts}, option=orjson.OPT_INDENT_2))
    say(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
