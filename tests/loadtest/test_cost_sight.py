"""How soon a cost was seen, from what topics and looks say."""

import msgspec
import pytest
from msgspec import Struct

from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine
from engine.cost.served import GpuPart, ReplicaUp, Served, Status, encode_served
from engine.placement import partition_for
from loadtest.cost_sight import Look, delays

PARTITIONS = 4
H = 500_000 * HOUR_US
MS = 1_000
HOME = partition_for(b"acme", PARTITIONS)


class Kept(Struct):
    """A record as Kafka hands it out."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def served(request: str, append_ms: int, begin_us: int = H, end_us: int = H + 5) -> Kept:
    key, value = encode_served(Served(request, "r", "m", begin_us, begin_us, end_us, 10, account="acme"))
    return Kept(0, H // MS + append_ms, key, value)


def line(request: str, append_ms: int, offset: int, amount: str | None = "1", hour_us: int = H) -> Kept:
    told = RequestLine(
        *("r", request, 0, hour_us, amount, amount or "0", "USD", False, "equal", "acme", "", None, "m"),
        *(Status.OK, 10, 0, 0, 1, 1),
    )
    return Kept(offset, H // MS + append_ms, b"r", msgspec.json.encode(told) + b"\nnot a line\n")


def look(seen_ms: int, *offsets: int) -> Look:
    return Look(H + seen_ms * MS, offsets)


def test_each_is_measured_from_its_own_append_to_where_it_stands() -> None:
    told = [served("a", 0), served("b", 400), served("a", 900)]  # told twice: the first time counts
    costs = {0: [line("a", 700, 0), line("b", 1_000, 1), line("a", 5_000, 2)], 1: []}
    looks = {HOME: [look(650, 0, 0), look(1_100, 1, 0), look(1_450, 2, 0), look(9_000, 3, 0)]}
    found = delays(told, costs, looks, {"b": H + 1_500 * MS}, PARTITIONS)
    assert (found.topic, found.margin, found.http, found.unseen) == ([700.0, 600.0], [1_100.0, 1_050.0], [1_100.0], 0)
    assert found.figures()["margin"] == {"p50": 1_075.0, "p99": pytest.approx(1_099.5), "max": 1_100.0, "samples": 2}
    later = {0: [line("a", 2_700, 0), line("b", 1_000, 1)], 1: []}
    assert delays(told, later, looks, {}, PARTITIONS).topic == [2_700.0, 600.0], "what comes later is told so"


def test_a_cost_that_nobody_knows_is_not_seen() -> None:
    told = [served("a", 0), served("b", 0), served("c", 0)]
    costs = {0: [line("a", 100, 0, amount=None), line("b", 100, 1)]}
    found = delays(told, costs, {HOME: [look(300, 1)]}, {}, PARTITIONS)
    assert (found.topic, found.margin, found.unseen) == ([100.0], [], 3)
    assert found.figures()["margin"] == {"p50": None, "p99": None, "max": None, "samples": 0}


def test_over_an_hour_s_end_the_cost_stands_when_that_of_both_hours_does() -> None:
    told = [served("a", 0, begin_us=H + HOUR_US - 10, end_us=H + HOUR_US + 10)]
    costs = {0: [line("a", 100, 0), line("a", 800, 1, hour_us=H + HOUR_US)]}
    assert delays(told, costs, {HOME: [look(900, 2)]}, {}, PARTITIONS).topic == [800.0]
    assert delays(told, {0: costs[0][:1]}, {HOME: [look(900, 2)]}, {}, PARTITIONS).unseen == 1


def test_an_owner_that_follows_and_begins_further_back_takes_nothing_away() -> None:
    looks = {HOME: [look(100), look(200, 5), look(300, 1), look(400, 6)]}
    assert delays([served("a", 0)], {0: [line("a", 50, 3)]}, looks, {}, PARTITIONS).margin == [200.0]


def test_what_is_no_execution_is_passed_over() -> None:
    key, value = encode_served(ReplicaUp("r", "m", (GpuPart("GPU-1", "h100"),), H, H))
    told = [Kept(0, H // MS, key, value), Kept(1, H // MS, b"rates", b"\x00sealed")]
    found = delays(told, {}, {}, {}, PARTITIONS)
    assert (found.topic, found.unseen) == ([], 0)
