"""Law R3: the time of sessions, whatever order their events come in and however often; open ones accrue in log time."""

import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine import sessions
from engine.catalog import (
    BadCatalogue,
    CatalogueDocument,
    PlanDefinition,
    PriceDefinition,
    check_succession,
    compile_catalogue,
)
from engine.meters import MeterDefinition
from engine.money import NANO
from engine.sessions import last_accrual
from engine.snapshot import account_fields, decode_account, encode_account
from tests.engine.bench import DAY, HOUR, MINUTE, SECOND, START, Bench, Store, graduated, kept_open, per_unit
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r1_marginal import standing


def document(amount: str = "3.60", timeout_s: int = 300) -> CatalogueDocument:
    """Seconds of GPUs by kind, each of which counts as many as the event says; beside them a count of the starts."""
    meters = {
        "gpu": MeterDefinition("gpu", "duration", "gpus", ("kind",), session="session", timeout_s=timeout_s),
        "units": MeterDefinition("use", "sum", "units", ("model",)),
    }
    prices = {
        "a100": per_unit(amount, "3600", meter="gpu", kind="a100"),
        "h100": graduated(("1000", "0.002"), (None, "0.0017"), meter="gpu", kind="h100"),
        "units": per_unit("1", meter="units"),
    }
    return CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)})


def told(
    bench: Bench, session: str, state: str, at: int | None = None, gpus: str = "1", kind: str = "a100", **more: Any
) -> str:
    data = {"session": session, "state": state, "gpus": gpus, "kind": kind}
    return bench.use(at=at, type="gpu", data=data, **more)


KINDS = {"one": ("a100", "0.5"), "two": ("h100", "8"), "six": ("a100", "0.333333333")}
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(sorted(KINDS)),
        st.sampled_from(["start", "heartbeat", "stop"]),
        st.integers(0, 40).map(lambda step: step * 17 * MINUTE) | st.integers(0, 3 * HOUR),
    ),
    min_size=1,
    max_size=10,
)


def folded(events: list[tuple[str, str, int]], order: list[int]) -> Bench:
    """The events, all at one moment, over two periods and with lots that begin and end inside; then an hour goes by."""
    bench = Bench(kept_open(document(timeout_s=3600), 30), kept_open(document("7.77", 3600), 30))
    bench.now = START - DAY
    bench.open(anchor_day=10)
    bench.scope("team")
    bench.cap("40")
    bench.cap_rule(50)
    bench.cap("3", "team", scope="team", window="hour")
    bench.cap_rule(50, "team", cap="team")
    bench.publish(2, START - 5 * HOUR)
    bench.grant("first", "20", "promo", priority=1, expires_us=START - 2 * HOUR)
    bench.grant("second", "15", effective_us=START - 4 * HOUR, priority=1)
    bench.now = START
    for number in order:
        session, state, back = events[number]
        kind, gpus = KINDS[session]
        outcome = told(bench, session, state, START - back, gpus, kind, id=str(number), scope="team")
        assert outcome in ("rated", "duplicate")
    for minutes in (7, 61):
        bench.tick(START + minutes * MINUTE)
    return bench


def extent(events: list[tuple[str, int]], accrued_us: int, timeout_us: int) -> tuple[int, int]:
    """From when to when a session goes, by its (state, time)."""
    begun = [time_us for state, time_us in events if state != "stop"]
    stops = [time_us for state, time_us in events if state == "stop"]
    seen = max(time_us for _, time_us in events)
    if not begun:
        return 0, 0
    end = max(stops) if stops else max(seen, accrued_us) if accrued_us <= seen + timeout_us else seen
    return min(begun), max(end, min(begun))


@settings(max_examples=40)
@given(EVENTS, st.randoms(use_true_random=False))
def test_no_order_and_no_repetition_changes_what_is_owed_or_who_pays(
    events: list[tuple[str, str, int]], source: random.Random
) -> None:
    """The same table, amounts and wallet, of what is open too; and the oracle's, charge by charge."""
    order = list(range(len(events)))
    shuffled = order * 2
    source.shuffle(shuffled)
    first, second = folded(events, order), folded(events, shuffled)
    assert used(first) == used(second)
    assert_the_same(first, oracle_of(first), str(events))
    assert_the_same(second, oracle_of(second, paranoid=len(events) < 4), str(events))


def used(bench: Bench) -> dict[str, object]:
    """What money depends on; a cell that holds nothing is none."""
    found = standing(bench)
    found["table"] = {
        start: cells for start, row in found["table"].items() if (cells := {key: n for key, n in row.items() if n})
    }
    found["owed"] = {key: owed for key, owed in found["owed"].items() if owed != (0, 0)}
    found["spend"] = {month: pico for month, pico in found["spend"].items() if pico}
    return found


@settings(max_examples=40)
@given(EVENTS)
def test_every_second_of_every_session_is_in_the_table_once(events: list[tuple[str, str, int]]) -> None:
    """Worked out here from the events alone: seconds times GPUs, to half a nano-unit for each segment that it lies in."""
    bench = folded(events, list(range(len(events))))
    account = bench.account()
    accrued = last_accrual("acme", bench.now)
    expected = {"a100": Fraction(0), "h100": Fraction(0)}
    for name, (kind, gpus) in KINDS.items():
        of = [(state, START - back) for session, state, back in events if session == name]
        if of:
            begin, end = extent(of, accrued, HOUR)
            expected[kind] += Fraction((end - begin) * NANO, SECOND) * Fraction(gpus)
    found = {"a100": 0, "h100": 0}
    for row in account.table.values():
        for (price, _), nano in row.items():
            assert nano >= 0
            found[price] += nano
    for kind, exact in expected.items():
        assert abs(found[kind] - exact) <= len(KINDS) * len(account.table)
    assert sum(bench.charges()) == sum(account.derive().spend.values())


@settings(max_examples=20)
@given(EVENTS, st.integers(0, 12))
def test_cuts_freezing_and_replay_end_in_the_same_bytes(events: list[tuple[str, str, int]], at: int) -> None:
    """A checkpoint anywhere, loaded and gone on with, is the replay from the start: state and lines."""
    bench = folded(events, list(range(len(events))))
    assert_cuts_leave_no_trace(bench, len(bench.log) - min(at, len(events) + 2))
    assert any(name.startswith("session ") for name in account_fields(encode_account(bench.account())))


def assert_cuts_leave_no_trace(bench: Bench, at: int) -> None:
    """A checkpoint at a record, loaded and gone on with, and what was frozen there, are the replay from the start."""
    store, partition = Store(), bench.fresh()
    for record in bench.log[:at]:
        partition.apply(*record)
    store.checkpoint(partition)
    partition.freeze_idle(0, 9)
    resumed = store.load_into(bench.fresh())
    for record in bench.log[at:]:
        partition.apply(*record)
        resumed.apply(*record)
    assert partition.state_bytes() == resumed.state_bytes() == bench.partition.state_bytes()
    assert partition.outputs.lines == bench.partition.outputs.lines
    account = bench.account()
    blob = encode_account(account)
    again = decode_account(blob, bench.partition._book)
    assert (encode_account(again), again.wake_us()) == (blob, account.wake_us())


@pytest.mark.parametrize("model", ["percentage", "dynamic"])
def test_no_price_of_each_event_is_of_time(model: str) -> None:
    """What an event is charged and how long a session goes are two things: publication refuses to mix them."""
    price = PriceDefinition("gpu", model, **({"percent": "2"} if model == "percentage" else {"factor": "1"}))  # type: ignore[arg-type]
    meters = {"gpu": document().meters["gpu"]}
    with pytest.raises(BadCatalogue) as caught:
        compile_catalogue(1, CatalogueDocument(meters, {"plan": PlanDefinition("USD", {"p": price})}))
    assert [fault.path for fault in caught.value.faults] == [("plans", "plan", "prices", "p", "model")]


def test_a_meter_of_time_keeps_its_cells_and_its_kind() -> None:
    """Sessions that are open go on under the next version, in the cells where they began."""
    before = document()
    for change, key in (({"group_by": ()}, "group_by"), ({"aggregation": "sum", "session": None}, "aggregation")):
        after = replace(before, meters=before.meters | {"gpu": replace(before.meters["gpu"], **change)})
        with pytest.raises(BadCatalogue) as caught:
            check_succession(before, after)
        assert ("meters", "gpu", key) in [fault.path for fault in caught.value.faults]
    check_succession(before, document("7", 60))


def test_a_new_time_out_holds_for_what_is_heard_of_under_it() -> None:
    """The version in force where a session was heard of last says how long it may be silent."""
    bench = Bench(document(timeout_s=60), document(timeout_s=3600))
    bench.open()
    bench.publish(2, START + 10 * MINUTE)
    for at in (START, START + 10 * MINUTE):
        bench.now = at
        told(bench, f"from {at}", "start")
    bench.tick(START + 30 * MINUTE)
    assert [name for (_, name), _ in bench.account().sessions.accruing()] == [f"from {START + 10 * MINUTE}"]
    assert_the_same(bench, oracle_of(bench), "time-out")


def test_one_session_too_many_is_set_aside_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until nothing of the older ones can come any more."""
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    bench = Bench(document())
    bench.open()
    assert [told(bench, name, "start") for name in ("one", "two")] == ["rated", "rated"]
    before = encode_account(bench.account())
    assert told(bench, "six", "start") == "dead_lettered.too_many_sessions"
    assert encode_account(bench.account()) == before
    assert told(bench, "two", "heartbeat") == "rated", "one that is known goes on"
