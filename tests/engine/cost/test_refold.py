"""A refold reads what it needs, keeps no more than what may still change, and takes its own rates over any. What it comes
to: tests/laws/test_cost_whatif.py."""

import msgspec

from engine.cost.attribution import AHEAD_US, Attribution, Horizons
from engine.cost.gpu_rates import HOUR_US, GpuRates, RateDocument
from engine.cost.refold import Refold
from engine.cost.rollup import Key, Sums
from engine.cost.served import GpuPart, ReplicaUp, Served, encode_served
from engine.cost.window import Bucket
from tests.engine.cost.histories import KEY, PARTITION, START_US, S, new_fold, rates_document, rates_record

UP = ReplicaUp("r", "llama", (GpuPart("GPU-1", "h100"),), START_US, START_US)
SHORT = Horizons(close_us=HOUR_US)


def send(fold: Refold | Attribution, record: Served | ReplicaUp, append_us: int) -> None:
    key, value = encode_served(record)
    fold.apply(value, key, append_us)


def ran(name: str, begin_us: int, seq: int = 0) -> Served:
    return Served(name, "r", "llama", begin_us, begin_us + S, begin_us + 2 * S, 10, output=5, seq=seq)


def test_it_reads_from_before_its_hours_to_where_nothing_changes_them() -> None:
    fold = Refold(PARTITION, KEY, SHORT, START_US, START_US + HOUR_US)
    assert fold.read_from_us == START_US - AHEAD_US
    assert fold.read_until_us == START_US + 3 * HOUR_US + AHEAD_US


def test_hours_behind_it_are_in_no_sum() -> None:
    fold = Refold(PARTITION, KEY, SHORT, START_US, START_US + HOUR_US)
    fold.apply(rates_record(), b"rates", START_US)
    send(fold, UP, START_US)
    send(fold, ran("a", START_US + HOUR_US - S), START_US + HOUR_US + S)  # half of it lies in the next hour
    send(fold, ran("b", START_US + HOUR_US + 9 * S), START_US + HOUR_US + 99 * S)
    fold.settle()
    fold.finish(START_US + 9 * HOUR_US)
    assert {key.hour_us for key in fold.rows()} == {START_US}
    direct = [sums.amount for key, sums in fold.rows().items() if key.bucket is Bucket.DIRECT]
    split = fold.token_costs()["llama"]
    assert split.uncached_input + split.cached_input + split.output == sum(direct) > 0


def test_what_comes_late_takes_the_place_of_what_was_settled() -> None:
    def total(*served: Served) -> int:
        fold = Refold(PARTITION, KEY, SHORT, START_US, START_US + HOUR_US)
        fold.apply(rates_record(), b"rates", START_US)
        send(fold, UP, START_US)
        for number, each in enumerate(served):
            send(fold, each, START_US + (number + 1) * HOUR_US // 2)
            fold.settle()
        fold.finish(START_US + 9 * HOUR_US)
        costs = fold.token_costs()["llama"]
        return costs.uncached_input + costs.output

    first, later = ran("a", START_US), msgspec.structs.replace(ran("a", START_US, seq=1), last_us=START_US + 9 * S)
    assert total(first, later) == total(later) > total(first)


def test_its_own_rates_count_whatever_is_published() -> None:
    plain = msgspec.convert(rates_document(1, "36"), RateDocument)
    fold = Refold(PARTITION, KEY, SHORT, START_US, START_US + HOUR_US, rates=GpuRates(plain))
    fold.apply(rates_record(9, "1"), b"rates", START_US)
    assert fold.rates is not None
    assert fold.rates.document.rates == plain.rates


def test_an_hour_has_the_replica_that_ran_in_it_though_another_has_taken_its_place() -> None:
    """It came and went long before and behind the hour, so no record of that time says that it was there."""
    fold = new_fold(SHORT)
    fold.apply(rates_record(), b"rates", START_US)
    down_us, hour_us = START_US + 30 * HOUR_US, START_US + 10 * HOUR_US
    again = msgspec.structs.replace(UP, up_us=down_us + HOUR_US, ready_us=down_us + HOUR_US)
    told: dict[Key, Sums] = {}
    for record, append_us in (
        (UP, START_US),
        (ran("a", hour_us), hour_us + 2 * S),
        (msgspec.structs.replace(UP, down_us=down_us, seq=1), down_us),
        (again, again.up_us),
        (ran("b", again.up_us + 5 * HOUR_US), again.up_us + 5 * HOUR_US + 2 * S),
    ):
        told |= {row.key: row.sums for row in fold.publish(append_us).rows}
        send(fold, record, append_us)
    told |= {row.key: row.sums for row in fold.publish(again.up_us + 6 * HOUR_US).rows}
    assert fold.closed_us > down_us
    refolded = Refold(PARTITION, KEY, SHORT, hour_us, hour_us + HOUR_US, blob=fold.blob())
    send(refolded, ran("a", hour_us), hour_us + 2 * S)
    refolded.finish(again.up_us)
    assert refolded.rows() == {key: sums for key, sums in told.items() if key.hour_us == hour_us}
    assert not any(sums.unknown for sums in refolded.rows().values())
