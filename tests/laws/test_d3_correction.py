"""Law D3: a correction leaves totals, tier position and wallet as they would have been without what it takes back."""

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.bench import DAY, HOUR, START, Bench, versions

Chain = tuple[bytes, list[tuple[str, bytes]]]  # an event; its corrections, in order: amends, and perhaps a cancel


def opened(**more: Any) -> Bench:
    """Two lots, a cap with a rule, a rule of the balance, and a team, of which not all was declared at first."""
    bench = Bench(*versions())
    bench.publish(2, START + HOUR)
    bench.open(**more)
    bench.grant("promo", "30", "promo", priority=1, expires_us=START + DAY)
    bench.grant("paid", "100")
    bench.cap("150")
    bench.cap_rule(50)
    bench.balance_rule("60")
    bench.scope("team:a")
    bench.now = START + 2 * HOUR
    return bench


def variant(bench: Bench, source: random.Random, event: bytes) -> bytes:
    """The same event with another quantity, model, time or scope."""
    body = json.loads(event)
    body["data"] = {"model": source.choice(["x", "tiered", "third"]), "units": source.choice([0, 1, 2, 7, 30, "0.5"])}
    body |= json.loads(bench.event(at=START + source.randrange(2 * HOUR))) | {"id": body["id"], "data": body["data"]}
    return json.dumps(body | {"scope": source.choice(["", "team:a"])}).encode()


def chains(bench: Bench, source: random.Random) -> list[Chain]:
    made: list[Chain] = []
    for _ in range(source.randrange(1, 6)):
        current = event = variant(bench, source, bench.event())
        corrections = []
        for revision in range(source.randrange(3)):
            amended = variant(bench, source, current)
            corrections.append(("amend", bench.correction(current, amended, revision)))
            current = amended
        if source.random() < 0.5:
            corrections.append(("cancel", bench.correction(current, None, len(corrections))))
        made.append((event, corrections))
    return made


def left_of(chain: Chain) -> bytes | None:
    """What the event comes to in the end; None: nothing."""
    event, corrections = chain
    if not corrections:
        return event
    kind, record = corrections[-1]
    return None if kind == "cancel" else json.dumps(json.loads(record)["data"]["amended"]).encode()


def money(bench: Bench) -> dict[str, Any]:
    """Totals, tier position and wallet: what is 0 is left out, for it may have been there or not."""
    account = bench.account()
    derived = account.derive()
    paid = derived.allocation
    return {
        "table": {
            (start, *key): quantity for start, row in account.table.items() for key, quantity in row.items() if quantity
        },
        "amounts": {key: run.amount for key, run in derived.running.items() if run.amount},
        "quantities": {key: run.quantity for key, run in derived.running.items() if run.quantity},
        "spend": {month: pico for month, pico in derived.spend.items() if pico},
        "burnt": {key: pico for key, pico in paid.burnt.items() if pico},
        "remaining": paid.remaining,
        "debt": {period: pico for period, pico in paid.debt.items() if pico},
        "balance": paid.balance,
    }


@settings(max_examples=60)
@given(st.integers(0, 10**9), st.booleans())
def test_in_any_order_and_however_often_corrections_leave_what_would_have_been(seed: int, twice: bool) -> None:
    """Events, amends and cancels in any order, some of them twice, end where the corrected events alone would have."""
    source = random.Random(seed)
    bench, plain = opened(), opened()
    sent = chains(bench, source)
    records = [record for event, corrections in sent for record in (event, *(each for _, each in corrections))]
    source.shuffle(records)
    for record in records:
        assert bench.record(b"acme", record) in ("rated", "cancelled", "amended", "parked", "duplicate")
    if twice:
        before = len(bench.partition.outputs.lines)
        for record in records:
            assert bench.record(b"acme", record) == "duplicate"
        assert len(bench.partition.outputs.lines) == before
    for chain in sent:
        left = left_of(chain)
        if left is not None:
            assert plain.record(b"acme", left) == "rated"
    assert money(bench) == money(plain)
    assert sum(bench.charges()) == sum(plain.charges())
    assert not bench.account().parked
