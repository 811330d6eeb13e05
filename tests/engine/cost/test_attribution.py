"""A partition's fold: what is set aside, when hours close, what a checkpoint holds. What it comes to: tests/laws."""

from contextlib import suppress

import pytest

from engine.cost.attribution import AHEAD_US, Attribution, Horizons, Refused, SetAside
from engine.cost.gpu_rates import HOUR_US
from engine.cost.served import GpuPart, ReplicaUp, Served, encode_served
from engine.cost.telemetry import Metric, Sample, SourceKind, encode_sample
from engine.events import Malformed
from tests.engine.cost.histories import KEY, PARTITION, START_US, S, new_fold, rates_record

UP = ReplicaUp("r", "llama", (GpuPart("GPU-1", "h100"),), START_US, START_US)


def send(fold: Attribution, record: Served | ReplicaUp, append_us: int) -> None:
    key, value = encode_served(record)
    fold.apply(value, key, append_us)


def ended(last_us: int) -> Served:
    return Served("a", "r", "llama", last_us - S, last_us - S, last_us, 10, output=1)


def refused(fold: Attribution, value: bytes | None, key: bytes | None, append_us: int) -> Refused:
    with pytest.raises(SetAside) as raised:
        fold.apply(value, key, append_us)
    return raised.value.reason


def test_what_cannot_be_read_is_set_aside_with_its_reason() -> None:
    fold = new_fold()
    assert refused(fold, b"{", b"r", START_US) is Refused.MALFORMED
    assert refused(fold, None, b"r", START_US) is Refused.MALFORMED
    assert refused(fold, rates_record(partition=PARTITION + 1), b"r", START_US) is Refused.BAD_MAC
    _, value = encode_served(UP)
    assert refused(fold, value, b"other", START_US) is Refused.MALFORMED
    assert fold.publish(START_US).rows == []


def test_a_producer_s_clock_may_be_five_minutes_ahead() -> None:
    fold = new_fold()
    send(fold, ended(START_US + AHEAD_US), START_US)
    key, value = encode_served(ended(START_US + AHEAD_US + 1))
    assert refused(fold, value, key, START_US) is Refused.TOO_FAR_AHEAD


def test_what_comes_when_its_hour_is_closed_is_too_late() -> None:
    fold = new_fold(Horizons(close_us=2 * HOUR_US))
    closing_us = START_US + 3 * HOUR_US
    send(fold, ended(START_US + HOUR_US), closing_us - 1)  # its hour is not over by two hours
    key, value = encode_served(ended(START_US + HOUR_US))
    assert refused(fold, value, key, closing_us) is Refused.TOO_LATE
    send(fold, UP, closing_us)
    key, value = encode_sample(Sample(SourceKind.GPU, "GPU-1", START_US + HOUR_US, {Metric.BUSY: 900}))
    with pytest.raises(SetAside, match="closed"):
        fold.apply_sample(value, key, closing_us)


def test_samples_are_wanted_again_once_a_gpu_is_known() -> None:
    fold = new_fold()
    key, value = encode_sample(Sample(SourceKind.GPU, "GPU-1", START_US, {Metric.BUSY: 900}))
    fold.apply_sample(value, key, START_US)  # of nobody's, as far as is known
    assert fold.take_samples_from_us() is None
    send(fold, UP, START_US)
    send(fold, UP, START_US)
    assert fold.take_samples_from_us() == START_US
    assert fold.take_samples_from_us() is None
    with pytest.raises(SetAside, match="key"):
        fold.apply_sample(value, b"GPU-2", START_US)


def test_known_records_are_counted_apart() -> None:
    fold = new_fold()
    for _ in range(2):
        send(fold, UP, START_US)
        send(fold, ended(START_US), START_US)
        fold.apply(rates_record(), b"r", START_US)
    assert fold.counts == {"applied": 3, "known": 3}


def test_a_blob_of_another_version_is_refused() -> None:
    fold = new_fold()
    for blob in (b"", b"\x91\x01", b"\x95\x02\x00\x00\xc0\x90"):
        with pytest.raises(Malformed, match="checkpoint"):
            fold.restore(blob)


def test_a_checkpoint_says_from_when_on_records_are_needed() -> None:
    fold = new_fold(Horizons(close_us=2 * HOUR_US))
    send(fold, UP, START_US)
    assert fold.closed_us == START_US - 2 * HOUR_US
    send(fold, ended(START_US + 3 * HOUR_US), START_US + 3 * HOUR_US + 5)
    fold.publish(0)
    assert fold.needed_from_us == START_US + HOUR_US - AHEAD_US
    other = Attribution(PARTITION, KEY, Horizons(close_us=2 * HOUR_US))
    other.restore(fold.blob())
    assert (other.closed_us, other.log_us, other.blob()) == (fold.closed_us, fold.log_us, fold.blob())


DAY_US = 24 * HOUR_US
TWO_HOURS = Horizons(close_us=2 * HOUR_US)


def stay(up_us: int, down_us: int | None = None, seq: int = 0, replica: str = "r") -> ReplicaUp:
    return ReplicaUp(replica, "llama", UP.gpus, up_us, up_us, down_us, seq)


def test_a_new_owner_knows_when_a_replica_went_that_came_again() -> None:
    """It went just before an hour that is open, and came again in it: the record of its end speaks of the closed one."""
    hour_us = START_US + HOUR_US
    records = [
        (stay(hour_us - 240 * S), hour_us - 240 * S),
        (stay(hour_us - 240 * S, hour_us - 120 * S, seq=1), hour_us - 120 * S),
        (stay(hour_us + 600 * S), hour_us + 600 * S),
    ]
    fold = new_fold(TWO_HOURS)
    fold.apply(rates_record(), b"rates", START_US)
    for record, append_us in records:
        send(fold, record, append_us)
    now_us = hour_us + 2 * HOUR_US
    fold.publish(now_us)
    send(fold, ended(now_us), now_us)
    fold.publish(now_us)
    assert fold.closed_us == hour_us
    other = Attribution(PARTITION, KEY, TWO_HOURS)
    other.restore(fold.blob())
    for record, append_us in records:
        if append_us >= other.needed_from_us:
            with suppress(SetAside):  # as the cost actor does
                send(other, record, append_us)
    send(other, ended(now_us), now_us)
    other.publish(now_us)
    assert other.rows() == [row for row in fold.rows() if row[0].hour_us >= hour_us]


def test_of_replicas_that_come_and_go_no_more_is_kept_than_those_of_a_day() -> None:
    """Each pod has a name of its own, and lives for half an hour."""
    fold = new_fold(TWO_HOURS)
    sizes = []
    for number in range(80):
        up_us = START_US + number * HOUR_US
        name = f"pod-{number:04d}"
        send(fold, stay(up_us, replica=name), up_us)
        send(fold, stay(up_us, up_us + HOUR_US // 2, seq=1, replica=name), up_us + HOUR_US // 2)
        fold.publish(up_us + HOUR_US // 2)
        sizes.append(len(fold.blob()))
    assert sizes[40] == sizes[60] == sizes[79]


def test_a_long_stay_is_known_for_as_long_as_its_hours_may_be_worked_out_again() -> None:
    """One that ended because the next one began, and said nothing of it, too."""
    fold = new_fold(TWO_HOURS)
    known = []
    send(fold, stay(START_US), START_US)
    again_us = START_US + 5 * HOUR_US
    send(fold, stay(again_us, again_us + HOUR_US), again_us + HOUR_US)
    for days in (1, 2, 41, 43):
        at_us = START_US + days * DAY_US
        key, value = encode_served(Served("a", "q", "llama", at_us, None, at_us, 10))
        fold.apply(value, key, at_us)
        fold.publish(at_us, live=False)
        other = Attribution(PARTITION, KEY, TWO_HOURS)
        other.restore(fold.blob())
        known.append(other.blob().count(b"GPU-1"))
    assert known == [2, 2, 2, 0]


@pytest.mark.parametrize(
    ("horizons", "told"),
    [
        ({"window_us": 7_000_000}, "window_us"),
        ({"window_us": 0}, "window_us"),
        ({"window_us": 1_200_000_000}, "window_us"),
        ({"settle_us": HOUR_US, "close_us": 1}, "settle_us"),
    ],
)
def test_horizons_that_make_no_sense_are_refused(horizons: dict[str, int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Horizons(**horizons)
