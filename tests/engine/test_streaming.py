"""What becomes of events of a stream: each row of README's table, and what else looks at them."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from engine import streams
from engine.catalog import StreamDefinition
from engine.corrections import revision_name
from engine.dedup import identity
from engine.holds import Bound, seal_token
from engine.money import NANO
from engine.snapshot import account_fields, decode_account, encode_account
from tests.engine.bench import DAY, DOLLAR, HOUR, KEY, Bench, document, us

APRIL = us("2026-04-01T00:00:00+00:00")


def opened(window_s: int = 3_600) -> Bench:
    bench = Bench(replace(document(), streams={"use": StreamDefinition(window_s)}))
    bench.open()
    return bench


def say(bench: Bench, seq: int, units: object, model: str = "x", at: int | None = None, **more: Any) -> str:
    stated: dict[str, Any] = {"id": "s", "seq": seq}
    return bench.use(units, model, at, **(stated | more))


def test_each_event_takes_the_place_of_the_one_before_it() -> None:
    bench = opened()
    assert say(bench, 0, 4, "tiered") == "rated"
    assert say(bench, 3, 12, "tiered") == "amended"
    assert say(bench, 2, 9, "tiered") == "outdated"
    assert say(bench, 7, 11, "x") == "amended"
    assert bench.debt() == 11 * DOLLAR
    lines = [json.loads(line) for _, line in bench.partition.outputs.lines]
    assert [(line["price"], line["quantity"], line["amount"], line.get("correction")) for line in lines] == [
        ("tiered", "4", "120", None),
        *(("tiered", "-4", "-120", "amend"), ("tiered", "12", "380", "amend")),
        *(("tiered", "-12", "-380", "amend"), ("x", "11", "11", "amend")),
    ]
    assert bench.partition.dedup.find(identity("acme", "gateway-1", revision_name("s", 2))) is not None
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_the_same_seq_is_a_duplicate_or_a_conflict() -> None:
    bench = opened()
    event = bench.event(4, id="s", seq=1)
    assert bench.record(b"acme", event) == "rated"
    assert bench.record(b"acme", event) == "duplicate"
    assert say(bench, 1, 5) == "dead_lettered.id_conflict"
    assert (bench.debt(), bench.partition.counts["alert_crossed"]) == (4 * DOLLAR, 1)


@pytest.mark.parametrize("seq", [-1, 10**9 + 1, "1", 1.5, True])
def test_a_seq_is_a_whole_number(seq: object) -> None:
    bench = opened()
    assert bench.use(1, id="s", seq=seq) == "dead_lettered.malformed"


def test_a_stream_that_is_over_takes_nothing() -> None:
    bench = opened()
    say(bench, 1, 4)
    bench.now += HOUR - 1000
    assert say(bench, 2, 5) == "amended"
    bench.now += 1000
    assert say(bench, 3, 6) == "dead_lettered.stream_over"
    assert bench.debt() == 5 * DOLLAR


def test_what_was_rated_without_a_seq_goes_on_without_one_and_the_other_way_round() -> None:
    bench = opened()
    assert bench.use(4, id="s") == "rated"
    assert say(bench, 1, 5) == "dead_lettered.stream_over"
    assert say(bench, 1, 5, id="t") == "rated"
    assert bench.use(5, id="t") == "dead_lettered.id_conflict"
    assert bench.debt() == 9 * DOLLAR


def test_a_type_without_streams_has_no_seq() -> None:
    bench = opened()
    assert say(bench, 1, 4, type="llm.request") == "dead_lettered.bad_stream"
    assert bench.account().rated == 0


def test_open_streams_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAMS_MAX", 2)
    bench = opened()
    assert [say(bench, 1, 1, id=name) for name in "abc"] == ["rated", "rated", "dead_lettered.too_many_streams"]
    assert say(bench, 2, 2, id="a") == "amended"
    bench.now += HOUR
    assert say(bench, 1, 1, id="c") == "rated"


def test_what_cannot_be_rated_leaves_what_was_rated_before() -> None:
    bench = opened()
    say(bench, 1, 4)
    before = encode_account(bench.account())
    for units, model, reason in ((-1, "x", "bad_quantity"), (5, "unheard", "no_price"), (5, "", "bad_dimension")):
        assert say(bench, 2, units, model) == f"dead_lettered.{reason}"
        assert encode_account(bench.account()) == before
    assert say(bench, 3, 5) == "amended"


def test_a_correction_record_corrects_no_stream() -> None:
    bench = opened()
    event = bench.event(4, id="s", seq=1)
    bench.record(b"acme", event)
    assert bench.correct(event) == "dead_lettered.bad_correction"
    bare = {name: value for name, value in json.loads(event).items() if name != "seq"}
    assert bench.correct(json.dumps(bare).encode()) == "dead_lettered.correction_mismatch"
    assert bench.debt() == 4 * DOLLAR


def test_a_hold_is_drawn_on_by_what_each_event_says_beyond_the_last() -> None:
    bench = opened()
    hold = bench.hold(Bound(10 * NANO, ("x",), ("x",)))
    token: dict[str, Any] = {"hold": seal_token(KEY, hold), "holdfinal": False}
    assert say(bench, 1, 6, **token) == "rated"
    assert say(bench, 2, 9, **token) == "amended"
    assert say(bench, 3, 8, **token) == "amended"
    (drawn,) = bench.account().draws.values()
    assert drawn.quantities == [9 * NANO]
    assert say(bench, 4, 12) == "dead_lettered.bad_hold"
    assert say(bench, 4, 12, **(token | {"holdfinal": True})) == "amended"
    settled = [json.loads(line).get("settled") for _, line in bench.partition.outputs.lines]
    assert settled == ["within", None, "within", None, "within", None, "over_hold"]
    assert bench.debt() == 12 * DOLLAR


def test_of_a_closed_period_it_is_an_adjustment() -> None:
    bench = opened(30 * 86_400)
    bench.now = APRIL - HOUR
    say(bench, 1, 4)
    bench.now = APRIL + 2 * DAY
    assert say(bench, 2, 3) == "amended"
    assert bench.account().derive().spend == {us("2026-03-01T00:00:00+00:00"): 4 * DOLLAR, APRIL: 3 * DOLLAR}
    assert (bench.debt(), sum(sum(each.values()) for each in bench.account().adjusted.values())) == (
        3 * DOLLAR,
        -4 * DOLLAR,
    )


def test_caps_and_scopes_follow() -> None:
    bench = opened()
    bench.scope("team:a")
    bench.cap("100", cap="hourly", window="hour")
    say(bench, 1, 4, scope="team:a")
    say(bench, 2, 7, scope="team:a")
    assert [*bench.account().scopes["team:a"].spend.values()] == [7 * DOLLAR]
    assert [*bench.account().tallies["hourly"].values()] == [7 * DOLLAR]
    say(bench, 3, 5)
    assert [*bench.account().scopes["team:a"].spend.values()] == [0]


def test_it_survives_being_frozen_and_an_idle_account_forgets_it() -> None:
    bench = opened()
    bench.scope("team:a")
    small = len(encode_account(bench.account()))
    say(bench, 1, 4, scope="team:a", data={"model": "x", "units": 4, "tags": {"k": "v"}, "usage_basis": "estimated"})
    again = decode_account(encode_account(bench.account()), bench.partition._book)
    assert [*again.streams] == [*bench.account().streams]
    assert encode_account(again) == encode_account(bench.account())
    assert account_fields(encode_account(again))["stream s of gateway-1, type use: seq"] == "1"
    bench.tick(bench.now + 15 * DAY)
    assert [*bench.account().streams] == []
    assert bench.account().wake_us() is None
    assert len(encode_account(bench.account())) < small + 100
