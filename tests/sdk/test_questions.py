from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from engine.events import parse_usage
from engine.money import parse_quantity
from tallygate_sdk import BadEvent, Bound, Check, Usage
from tallygate_sdk.calls import capture_call, check_call

AT = datetime(2026, 11, 22, 12, 0, 0, 123456, timezone(timedelta(hours=2)))


def made(**fields: Any) -> Usage:
    return Usage(**({"account": "acme", "type": "t", "source": "s", "data": {}} | fields))


def test_the_engine_reads_what_is_written() -> None:
    event = parse_usage(
        made(
            id="e1",
            time=AT,
            data={"q": Decimal("1.50"), "n": 3, "model": "small"},
            scope="team:red",
            hold="token",
            final=False,
            seq=4,
        ).cloud_event()
    )
    assert (event.id, event.source, event.type, event.subject) == ("e1", "s", "t", "acme")
    assert event.time_us == 1_795_341_600_123_456
    assert event.data == {"q": Decimal("1.50"), "n": 3, "model": "small"}
    assert (event.scope, event.hold, event.hold_final, event.seq) == ("team:red", "token", False, 4)


def test_what_is_left_out_is_not_sent() -> None:
    assert set(made().cloud_event()[1:-1].split(b",")) >= {b'"specversion":"1.0"', b'"data":{}'}
    assert not any(word in made().cloud_event() for word in (b"hold", b"scope", b"seq"))


def test_an_event_has_an_id_and_a_time_of_its_own_that_stay() -> None:
    one, other = made(), made()
    assert one.id != other.id and one.cloud_event() == one.cloud_event()
    assert abs((datetime.now(UTC) - one.time).total_seconds()) < 60


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"time": datetime(2026, 11, 22)}, "has no zone"),  # noqa: DTZ001 the point
        ({"account": ""}, "account '' must have 1 to 256"),
        ({"source": "x" * 257}, "source 'xxx"),
        ({"data": {"a": object()}}, "is no JSON"),
        ({"data": {"a": Decimal("NaN")}}, "is no JSON"),
        ({"data": {"a": [{"b": Decimal("-Infinity")}]}}, "is no JSON"),
        ({"data": {"a": msgspec.Raw(b"{")}}, "is no JSON"),
        ({"data": {"a": "x" * 70_000}}, "65536 is the limit"),
    ],
)
def test_what_could_never_be_taken_is_refused_here(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadEvent, match=said):
        made(**fields).cloud_event()


@pytest.mark.parametrize(
    ("quantity", "written"),
    [
        ("0.0000001", b"0.0000001"),
        ("1E-9", b"0.000000001"),
        ("1E+5", b"100000"),
        ("1.50", b"1.50"),
        ("-0.000002", b"-0.000002"),
        ("1E+999999999", b"1E+999999999"),
    ],
)
def test_a_quantity_is_written_in_plain_digits(quantity: str, written: bytes) -> None:
    """Python shows a small Decimal with an exponent, and such a number is none that is billed."""
    event = made(data={"q": Decimal(quantity), "in": {"deep": [Decimal(quantity)]}}).cloud_event()
    assert b'"data":{"q":%b,"in":{"deep":[%b]}}' % (written, written) in event
    check = check_call(Check("acme", bounds=(Bound(("q",), Decimal(quantity)),)))
    assert b'"up_to":"%b"' % written in (check.body or b"")
    captured = capture_call(made(data={"q": Decimal(quantity)}, hold="token"))
    assert b'"data":{"q":%b}' % written in (captured.body or b"")


def test_the_engine_counts_the_smallest_quantity() -> None:
    event = parse_usage(made(data={"q": Decimal("0.000000001")}).cloud_event())
    assert parse_quantity(event.data["q"]) == 1
