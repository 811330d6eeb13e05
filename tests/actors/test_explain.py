"""A charge, looked up: the event, the lines that count, and what each tier of the price adds to them."""

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from actors import explain
from actors.door_wire import AsOf, FindRated, RatedAt
from actors.explain import Charge, Charges, EventGone, LineCharge, LinesAway, VersionLost
from actors.ports import Record
from engine.catalog import CatalogueDocument, CommitmentDefinition, PriceDefinition, StreamDefinition
from tests.actors.proof_rig import RATED, BenchReader, ProofRig
from tests.engine.bench import HOUR, MINUTE, SECOND, TOPIC, Bench, document, graduated, us
from tests.laws.test_r1_shared_tiers import sharing
from tests.laws.test_r3_durations import document as sessions
from tests.simulation.sim_log import SimRecord


class Noting(BenchReader):
    """Notes which blocks of `rated` were looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at: list[int] = []

    async def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]:
        async for record in super().read(topic, partition, offset, end):
            if topic == RATED:
                self.looked_at.append(record.offset)
            yield record


class Desk(ProofRig):
    """A bench whose records and lines are in topics, and the charges in them."""

    def __init__(self, *documents: CatalogueDocument) -> None:
        super().__init__(Bench(*documents))
        self.reader: Noting = Noting()
        self.charges = Charges(self.reader, self, TOPIC, RATED)
        self.bench.open()

    async def catalogue(self, version: int) -> Any:
        body = self.catalogues.get(version)
        return None if body is None else SimpleNamespace(body=body)

    def use(self, event_id: str, units: int, model: str = "tiered", **more: Any) -> int:
        """An event a second later, its lines told at once; its offset."""
        at = more.pop("at", self.bench.now + SECOND)
        self.bench.now += SECOND
        assert self.bench.use(units, model, at, id=event_id, **more) in ("rated", "duplicate")
        self.checkpoint()
        return len(self.bench.log) - 1

    def tell(self, *blocks: list[dict[str, Any]]) -> None:
        """Blocks of `rated`, as they are given."""
        for block in blocks:
            self.send_lines([orjson.dumps(line) for line in block])

    def lines(self) -> list[dict[str, Any]]:
        """All that was told."""
        blocks = self.reader.records[RATED]
        return [orjson.loads(line) for block in blocks for line in (block.value or b"").splitlines()]

    async def of(self, offset: int, event_id: str, epoch: int = 0, plan: str = "plan", account: str = "acme") -> Charge:
        asked = FindRated(account, "gateway-1", event_id)
        return await self.charges.of(asked, RatedAt(offset, True, plan, "UTC", 1, AsOf(0, epoch, offset + 1, 0, 0)))

    async def line(self, offset: int, event_id: str) -> LineCharge:
        (line,) = (await self.of(offset, event_id)).lines
        return line


@pytest.fixture
def desk() -> Desk:
    return Desk()


# -------------------------------------------------------------------------------------------------------- what it says


async def test_each_tier_says_its_bounds_its_rate_and_what_it_charges(desk: Desk) -> None:
    desk.use("first", 8)
    offset = desk.use("second", 7)
    desk.use("second", 7, at=desk.bench.now)  # a duplicate leaves nothing
    line = await desk.line(offset, "second")
    shown = [(t.number, t.start, t.end, t.amount, t.per, t.quantity, t.charged) for t in line.tiers]
    assert shown == [(1, "0", "10", "30", "1", "2", "60"), (2, "10", "50", "40", "1", "5", "200")]
    assert (line.own, line.beyond, line.line.amount, line.used_before) == ("260", "0", "260", "8")
    assert line.used_after == "15"
    assert line.meter is not None
    assert (line.meter.name, line.meter.field, line.where) == ("units", "units", {"model": "tiered"})
    assert desk.bench.charges() == [] and [told["amount"] for told in desk.lines()] == ["240", "260"]


async def test_what_a_quantity_grant_served_is_a_tier_that_costs_nothing(desk: Desk) -> None:
    """8 units priced, then 7, of which 4 are the grant's: the other three go on where the first 8 ended."""
    desk.use("first", 8)
    desk.bench.grant_units("pack", "tiered", "4")
    offset = desk.use("second", 7)
    line = await desk.line(offset, "second")
    shown = [(t.number, t.amount, t.quantity, t.charged) for t in line.tiers]
    assert shown == [(1, "30", "2", "60"), (2, "40", "1", "40"), (-2, "0", "4", "0")]
    assert (line.own, line.beyond, line.line.amount, line.used_before, line.used_after) == (
        "100",
        "0",
        "100",
        "8",
        "11",
    )


async def test_an_agreed_price_is_explained_by_what_was_agreed(desk: Desk) -> None:
    desk.bench.agree("tiered", {"model": "graduated", "tiers": [{"amount": "3", "up_to": "5"}, {"amount": "2"}]})
    (agreed,) = desk.bench.account().contract.agreed
    offset = desk.use("e", 7)
    asked = FindRated("acme", "gateway-1", "e")
    known = ((agreed.from_us, agreed.price, agreed.terms or ""),)
    found = RatedAt(offset, True, "plan", "UTC", 1, AsOf(0, 0, offset + 1, 0, 0), (), known)
    (line,) = (await desk.charges.of(asked, found)).lines
    assert [(t.number, t.start, t.end, t.amount, t.charged) for t in line.tiers] == [
        (1, "0", "5", "3", "15"),
        (2, "5", None, "2", "4"),
    ]
    assert (line.own, line.beyond, line.line.agreed_us, line.where) == ("19", "0", agreed.from_us, {"model": "tiered"})
    with pytest.raises(VersionLost):
        await desk.line(offset, "e")


async def test_usage_beyond_a_commitment_is_explained_by_what_is_committed_to_in_its_period() -> None:
    """$30 of x a month are $21 from 10 April on: of 10 units, one as it stands and nine at twice that. Late usage of a
    closed period tells what it changes in a commitment of several prices, too, which no meter is of."""
    sold = document(x=PriceDefinition("units", "per_unit", {"model": "x"}, "1", commitment="30", overage="2"))
    plan = replace(sold.plans["plan"], commitments={"y's": CommitmentDefinition("90", ("y",))})
    desk = Desk(replace(sold, plans={"plan": plan}))
    desk.bench.now = us("2026-04-10T00:00:00+00:00")
    desk.bench.open("late")
    desk.use("e1", 20, "x", account="late")
    offset = desk.use("e2", 10, "x", account="late")
    (line,) = (await desk.of(offset, "e2", account="late")).lines
    assert (line.line.commitment, line.line.used) == ("21", "20")
    assert [(t.number, t.amount, t.quantity, t.charged) for t in line.tiers] == [(1, "1", "10", "19")]
    assert (line.own, line.beyond, line.line.amount) == ("19", "0", "19")
    first = us("2026-05-02T00:00:00+00:00")
    desk.bench.tick(first)
    offset = desk.use("e3", 10, "y", at=first - 40 * HOUR, account="late")
    usage, missing = (await desk.of(offset, "e3", account="late")).lines
    assert (usage.line.amount, missing.line.amount, missing.beyond) == ("10", "-10", "-10")
    assert (missing.line.due, missing.line.price, missing.meter) == ("commitment", "y's", None)


async def test_a_short_period_is_explained_by_what_it_includes(desk: Desk) -> None:
    """A day of 31 is left of the month in which plan `pro` includes 20 units."""
    last = us("2026-03-31T00:00:00+00:00")
    assert desk.bench.sell("pro", last) == "applied"
    desk.bench.now = last
    offset = desk.use("e", 2, "x")
    asked, as_of = FindRated("acme", "gateway-1", "e"), AsOf(0, 0, offset + 1, 0, 0)
    found = RatedAt(offset, True, "plan", "UTC", 1, as_of, phases=((last, "pro"),))
    (line,) = (await desk.charges.of(asked, found)).lines
    assert line.line.included == "0.645161290"
    assert [(t.number, t.start, t.end, t.quantity) for t in line.tiers] == [
        (0, "0", "0.645161290", "0.645161290"),
        (1, "0.645161290", None, "1.354838710"),
    ]
    assert (line.own, line.beyond) == (line.line.amount, "0")


@pytest.mark.parametrize(
    ("model", "own", "moved"),
    [
        ("graduated", [(1, "10", "40", "400")], [(1, "3", "-20", "-60"), (2, "1", "20", "20")]),
        ("volume", [(2, "8", "40", "320")], [(1, "3", "-80", "-240"), (2, "1", "80", "80")]),
    ],
)
async def test_what_an_event_moves_in_shared_tiers_is_a_line_of_its_own(
    model: str, own: list[tuple[int, str, str, str]], moved: list[tuple[int, str, str, str]]
) -> None:
    """80 of y are there; 40 of x lie before them, or make them reach another tier."""
    desk = Desk(sharing(model))
    desk.use("e1", 80, "y")
    lines = (await desk.of(desk.use("e2", 40, "x"), "e2")).lines
    shown = [[(t.number, t.amount, t.quantity, t.charged) for t in line.tiers] for line in lines]
    assert shown == [own, moved]
    assert [(line.own, line.repricing, line.beyond) for line in lines] == [
        (lines[0].line.amount, "0", "0"),
        ("0", lines[1].line.amount, "0"),
    ]
    assert [line.used_before for line in lines] == [None, None]


async def test_the_event_is_as_it_was_sent(desk: Desk) -> None:
    offset = desk.use("e", 3)
    charge = await desk.of(offset, "e")
    assert orjson.loads(charge.value)["data"] == {"model": "tiered", "units": 3}
    assert (charge.event.id, charge.append_ms) == ("e", desk.bench.now // 1000)


async def test_where_one_tier_takes_all_nothing_says_what_was_used_before(desk: Desk) -> None:
    desk.use("first", 3)
    line = await desk.line(desk.use("second", 4), "second")
    assert (line.used_before, [tier.quantity for tier in line.tiers], line.own) == (None, ["4"], "120")
    nothing = await desk.line(desk.use("third", 0), "third")
    assert (nothing.tiers, nothing.own, nothing.beyond, nothing.line.amount) == ([], "0", "0", "0")


async def test_an_event_that_feeds_several_meters_has_a_line_for_each(desk: Desk) -> None:
    offset = desk.use("e", 0, type="llm.request", data={"model": "any", "tokens": 1_500})
    calls, tokens = (await desk.of(offset, "e")).lines
    assert calls.meter is not None
    assert (calls.meter.field, calls.line.quantity, calls.own) == (None, "1", "0.250000000000")
    assert (calls.tiers[0].amount, calls.tiers[0].per, calls.tiers[0].end) == ("0.25", "1", None)
    assert [(tier.quantity, tier.charged) for tier in tokens.tiers] == [("1000", "2"), ("500", "0.500000000000")]
    assert tokens.line.amount == tokens.own == "2.500000000000"


async def test_what_accrued_at_the_record_of_an_event_is_no_part_of_its_charge() -> None:
    """A session's stop is explained by its own stretches, of each price; what moved log time has charged is of nobody."""
    desk = Desk(sessions(), sessions("7.20"))
    data = {"session": "s", "state": "start", "gpus": "1", "kind": "a100"}
    bench = desk.bench
    assert bench.publish(2, bench.now + 10 * MINUTE) == "catalogue"
    begin = bench.now
    started = desk.use("start", 0, type="gpu", data=data, at=begin)
    with pytest.raises(LinesAway):
        await desk.of(started, "start")
    bench.now = begin + 4 * MINUTE
    beaten = desk.use("beat", 0, type="gpu", data=data | {"state": "heartbeat"})
    bench.now = begin + 20 * MINUTE
    stopped = desk.use("stop", 0, type="gpu", data=data | {"state": "stop"}, at=begin + 12 * MINUTE)
    first, second = (await desk.of(stopped, "stop")).lines
    assert [line.get("accrued_us") for line in desk.lines() if line["offset"] == stopped][-3:] != [None] * 3
    assert first.line.session == second.line.session == "s"
    assert (second.line.quantity, second.own, second.line.version) == ("120", "0.240000000000", 2)
    assert int(first.line.quantity) == 600 - 241, "up to the new price, but for what was charged by the heartbeat"
    (line,) = (await desk.of(beaten, "beat")).lines
    assert line.meter is not None
    assert line.meter.measured == "seconds of gpus"


async def test_late_usage_says_what_it_changes_in_the_price_of_what_came_before_it() -> None:
    """5 units under version 2 cost 50; 8 late ones under version 1 take the tiers below them, and 3 now cost 100."""
    desk = Desk(document(), document(tiered=graduated(("10", "10"), (None, "100"), model="tiered")))
    late = desk.bench.now
    desk.bench.publish(2, late + 10 * MINUTE)
    desk.bench.now += 20 * MINUTE
    assert (await desk.line(desk.use("second", 5), "second")).line.amount == "50"
    line = await desk.line(desk.use("late", 8, at=late), "late")
    assert (line.line.version, line.own, line.beyond, line.line.amount) == (1, "270", "240", "510")


async def test_rounding_of_the_period_s_total_is_told_apart(desk: Desk) -> None:
    """A third of a pico each: the second unit brings the total from 0.33 to 0.67, which rounds to 1."""
    desk.use("first", 1, "third")
    line = await desk.line(desk.use("second", 1, "third"), "second")
    assert (line.own, line.beyond, line.line.amount) == ("0", "0.000000000001", "0.000000000001")


async def test_a_correction_that_waited_is_told_apart_from_the_charge_at_the_same_offset(desk: Desk) -> None:
    event = desk.bench.event(12, "tiered", id="e")
    less = event.replace(b'"units": 12', b'"units": 4')
    assert desk.bench.correct(event, less) == "parked"
    assert desk.bench.record(b"acme", event) == "rated"
    desk.checkpoint()
    offset = len(desk.bench.log) - 1
    asked = FindRated("acme", "gateway-1", "e")
    place = RatedAt(offset, True, "plan", "UTC", 1, AsOf(0, 0, offset + 1, 0, 0), (offset,))
    charge = await desk.charges.of(asked, place)
    assert [line.line.amount for line in charge.lines] == ["380"]
    ((kind, at, lines),) = [(each.kind, each.offset, each.lines) for each in charge.corrections]
    assert (kind, at, [line.line.amount for line in lines]) == ("amend", offset, ["-380", "120"])


async def test_what_takes_the_place_of_an_event_of_a_stream_is_told_as_an_amend() -> None:
    desk = Desk(replace(document(), streams={"use": StreamDefinition()}))
    offset = desk.use("s", 4, seq=1)
    assert desk.bench.use(9, "tiered", id="s", seq=2) == "amended"
    desk.checkpoint()
    later = len(desk.bench.log) - 1
    place = RatedAt(offset, True, "plan", "UTC", 1, AsOf(0, 0, later + 1, 0, 0), (later,))
    charge = await desk.charges.of(FindRated("acme", "gateway-1", "s"), place)
    assert [line.line.amount for line in charge.lines] == ["120"]
    ((kind, at, lines),) = [(each.kind, each.offset, each.lines) for each in charge.corrections]
    assert (kind, at, [line.line.amount for line in lines]) == ("amend", later, ["-120", "270"])


# -------------------------------------------------------------------------------------------------- which lines count


async def test_the_lines_of_the_highest_epoch_count(desk: Desk) -> None:
    offset = desk.use("e", 3)
    (line,) = desk.lines()
    later = line | {"offset": offset + 1}
    desk.tell([later], [line | {"epoch": 5, "settled": "late"}, later | {"epoch": 5}])
    charge = await desk.of(offset, "e", epoch=5)
    assert [(each.line.epoch, each.line.settled) for each in charge.lines] == [(5, "late")]


async def test_no_more_is_read_than_tells_that_nothing_else_can_come(desk: Desk) -> None:
    offset = desk.use("e", 3)
    (line,) = desk.lines()
    own = [[line | {"offset": offset + number}] for number in (1, 2)]
    successors = [[line | {"offset": offset + number, "epoch": 5}] for number in (3, 4)]
    desk.tell(*own, *successors)
    await desk.of(offset, "e", epoch=0)
    assert desk.reader.looked_at == [0, 1], "the owner that told them is still the owner"
    desk.reader.looked_at.clear()
    await desk.of(offset, "e", epoch=9)
    assert desk.reader.looked_at == [0, 1, 2, 3], "the next owner began behind the event"


async def test_what_others_wrote_into_the_topic_is_passed_over(desk: Desk) -> None:
    offset = desk.use("e", 3)
    desk.send_lines([b"no line at all"])
    desk.send_lines([b'{"offset":%d,' % offset])
    assert (await desk.line(offset, "e")).line.quantity == "3"


async def test_lines_that_were_cut_into_two_blocks_belong_together(desk: Desk) -> None:
    offset = desk.use("e", 0, type="llm.request", data={"model": "any", "tokens": 1})
    calls, tokens = desk.lines()
    desk.reader.records[RATED].clear()
    desk.tell([calls], [tokens])
    assert [line.line.line for line in (await desk.of(offset, "e")).lines] == [0, 1]


@pytest.mark.parametrize("apart_s", [0, 5, 500])
async def test_a_broker_whose_clock_is_behind_has_told_the_lines_all_the_same(desk: Desk, apart_s: int) -> None:
    for number in range(600):
        desk.use(f"before-{number}", 1, "x")
    offset = desk.use("e", 3)
    for block in desk.reader.records[RATED]:
        block.timestamp -= apart_s * 1_000
    assert (await desk.line(offset, "e")).line.quantity == "3"
    assert (len(desk.reader.looked_at) < 10) is (apart_s == 0)


async def test_there_is_an_end_to_what_is_looked_through(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    offset = desk.use("e", 3)
    lines = desk.reader.records[RATED].pop()
    for number in range(50):
        desk.use(f"other-{number}", 1, "x")
    desk.reader.records[RATED].append(SimRecord(50, lines.timestamp, None, lines.value))
    assert (await desk.of(offset, "e")).lines
    monkeypatch.setattr(explain, "LOOKED_THROUGH_MAX", 2_000)
    desk.reader.looked_at.clear()
    with pytest.raises(LinesAway):
        await desk.of(offset, "e")
    assert len(desk.reader.looked_at) < 30


# ----------------------------------------------------------------------------------------------------- what is missing


async def test_an_event_that_the_log_has_lost_is_gone(desk: Desk) -> None:
    offset = desk.use("e", 3)
    with pytest.raises(EventGone):
        await desk.of(offset, "another")
    with pytest.raises(EventGone):
        await desk.of(offset, "e", account="globex")
    with pytest.raises(EventGone):
        await desk.of(0, "e")  # a control record
    desk.reader.records[TOPIC].clear()
    with pytest.raises(EventGone):
        await desk.of(offset, "e")


async def test_lines_that_are_not_told_yet_are_away(desk: Desk) -> None:
    offset = desk.use("e", 3)
    desk.reader.records[RATED].clear()
    with pytest.raises(LinesAway):
        await desk.of(offset, "e")


async def test_a_price_that_the_store_has_lost_is_named(desk: Desk) -> None:
    offset = desk.use("e", 3)
    body = desk.catalogues.pop(1)
    with pytest.raises(VersionLost, match="version 1 is not in the store"):
        await desk.of(offset, "e")
    desk.catalogues[1] = body
    with pytest.raises(VersionLost, match="'no-plan'"):
        await desk.of(offset, "e", plan="no-plan")
