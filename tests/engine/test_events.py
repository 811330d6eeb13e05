"""What stands in a record: CloudEvents, times, fingerprints, sealed control records."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corrections import CANCEL
from engine.events import (
    DATA_FIELDS_MAX,
    LINGER_US_MAX,
    NESTED_MAX,
    SCOPE_TEXT_MAX,
    SLICES_MAX,
    TOKEN_TEXT_MAX,
    BadMac,
    Control,
    Grant,
    Malformed,
    OnBalance,
    OnCapPercent,
    OpenAccount,
    Owner,
    SetCap,
    SetOverdraft,
    SetRateLimit,
    SetRule,
    SetScope,
    Slices,
    Tick,
    command_digest,
    fingerprint,
    is_scope,
    parse_control,
    parse_time,
    parse_usage,
    seal,
    unseal,
)
from engine.money import NotADecimal, parse_quantity

KEY = b"k" * 32


def value(**changes: Any) -> bytes:
    event = {
        "specversion": "1.0",
        "id": "e1",
        "source": "gateway",
        "type": "llm.request",
        "subject": "acme",
        "time": "2026-11-22T10:00:00Z",
        "data": {"tokens": 5},
        **changes,
    }
    return json.dumps({name: item for name, item in event.items() if item is not ...}).encode()


def with_data(data: str) -> bytes:
    return value(data={}).replace(b'"data": {}', b'"data": ' + data.encode())


# ------------------------------------------------------------------------------------------------------ usage events


def test_a_usage_event_is_read_whole() -> None:
    event = parse_usage(value())
    assert (event.id, event.source, event.type, event.subject) == ("e1", "gateway", "llm.request", "acme")
    assert event.data == {"tokens": 5}
    assert event.time_us == int(datetime(2026, 11, 22, 10, tzinfo=UTC).timestamp()) * 1_000_000


def test_time_and_subject_may_be_absent_and_other_attributes_do_not_matter() -> None:
    event = parse_usage(value(time=..., subject=..., traceparent="00-1", dataschema=3))
    assert (event.time_us, event.subject) == (None, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"specversion": "0.3"},
        {"specversion": ...},
        {"id": ""},
        {"id": 7},
        {"id": "x" * 257},
        {"source": ...},
        {"type": "a\x00b"},
        {"subject": 7},
        {"time": "yesterday"},
        {"time": "2026-11-22T10:00:00"},
        {"time": "2026-02-30T10:00:00Z"},
        {"time": 5},
        {"data": ...},
        {"data": []},
        {"data": {str(number): 1 for number in range(DATA_FIELDS_MAX + 1)}},
    ],
)
def test_what_is_no_cloud_event_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_usage(value(**changes))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_malformed(junk: bytes) -> None:
    with pytest.raises(Malformed):
        parse_usage(junk)


def test_bottomless_nesting_is_malformed() -> None:
    with pytest.raises(Malformed):
        parse_usage(with_data('{"a":' + "[" * 20_000 + "]" * 20_000 + "}"))


def nested(depth: int, **attributes: Any) -> bytes:
    """An event in which so many objects and lists stand inside one another: itself, its data, and lists."""
    body = value(data={"a": "deepest", "b": "[{" * 99 + '"'}, **attributes)
    return body.replace(b'"deepest"', b"[" * (depth - 2) + b"1" + b"]" * (depth - 2))


def test_so_many_objects_and_lists_may_stand_inside_one_another() -> None:
    """Those that a text names are none. A correction may have two more, as its events stand in its data."""
    assert parse_usage(nested(NESTED_MAX)).id
    with pytest.raises(Malformed, match="more than 64 objects and lists"):
        parse_usage(nested(NESTED_MAX + 1))
    assert parse_usage(nested(NESTED_MAX + 2, type=CANCEL)).id
    with pytest.raises(Malformed):
        parse_usage(nested(NESTED_MAX + 3, type=CANCEL))
    with pytest.raises(Malformed, match="more than 64"):  # a text without end is gone through once
        parse_usage(b"[" * (NESTED_MAX + 3) + b'"' + b'\\"' * 500_000)
    many = value(data={"a": [[1]] * 1_000})
    assert parse_usage(many).data["a"] == [[1]] * 1_000
    with pytest.raises(Malformed, match="more than 64"):
        parse_control(b'{"kind":"tick","epoch":' + b"[" * NESTED_MAX + b"]" * NESTED_MAX + b"}")


@pytest.mark.parametrize("written", ["0.0000001", "0.10", "3", "-0.5", "0.000000001", "12345678901234567.123456789"])
def test_a_number_is_read_as_it_is_written(written: str) -> None:
    read = parse_usage(with_data(f'{{"tokens": {written}}}')).data["tokens"]
    assert parse_quantity(read) == Decimal(written) * 10**9


@pytest.mark.parametrize("written", ["1e3", "15e-1", "1E-7", "0e0", "1e400"])
def test_a_number_with_an_exponent_is_no_quantity(written: str) -> None:
    read = parse_usage(with_data(f'{{"tokens": {written}}}')).data["tokens"]
    with pytest.raises(NotADecimal):
        parse_quantity(read)


# -------------------------------------------------------------------------------------------------------------- time


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_printed_instant_is_read_back(instant: datetime) -> None:
    expected = (instant - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)
    assert parse_time(instant.isoformat(timespec="microseconds")) == expected
    assert parse_time(instant.isoformat(timespec="microseconds").replace("+00:00", "Z")) == expected


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01 00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:30:00-00:30", 0),
        ("1970-01-01T00:00:00.1Z", 100_000),
        ("1970-01-01T00:00:00.123456789Z", 123_456),
        ("1970-01-01T00:00:00.999999Z", 999_999),
        ("1969-12-31T23:59:59.999999Z", -1),
    ],
)
def test_times_of_rfc_3339(text: str, microseconds: int) -> None:
    assert parse_time(text) == microseconds
    assert parse_time(text) == microseconds  # the second time from the remembered second


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01T00:00Z",
        "1970-01-01T24:00:00Z",
        "1970-13-01T00:00:00Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00+24:00",
        "1970-01-01T00:00:00.12345६Z",
        "1970-01-01T00:00:00,123456Z",
        " 1970-01-01T00:00:00Z",
    ],
)
def test_other_times_are_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse_time(text)


# ------------------------------------------------------------------------------------------------------- fingerprint


def print_of(record: bytes) -> bytes:
    event = parse_usage(record)
    assert event.time_us is not None
    return fingerprint(event, event.time_us)


@pytest.mark.parametrize(
    "same",
    [
        '{"a": 5, "b": "x"}',
        '{"b": "x", "a": 5}',
        '{"a":5.0,"b":"x"}',
        '{"a": 5e0, "b": "\\u0078"}',
        '{"a": 0.5e1, "b": "x"}',
    ],
)
def test_the_way_of_writing_does_not_change_a_fingerprint(same: str) -> None:
    assert print_of(with_data(same)) == print_of(with_data('{"a": 5, "b": "x"}'))


@pytest.mark.parametrize("digits", [42, 4300])
def test_nor_does_it_where_a_whole_number_is_as_long_as_can_be_read(digits: int) -> None:
    written = ("9" * digits, "9" * digits + ".0", "9" * digits + "e0", "9." + "9" * (digits - 1) + f"e{digits - 1}")
    assert len({print_of(with_data(f'{{"a": {number}}}')) for number in written}) == 1
    longer = (f'{{"a": {digit * 4301}.0}}' for digit in "89")
    assert len({print_of(with_data(data)) for data in longer}) == 2


@pytest.mark.parametrize(
    "changed",
    [
        value(type="other"),
        value(time="2026-11-22T10:00:00.000001Z"),
        value(data={"tokens": 6}),
        value(data={"tokens": "5"}),
        value(data={"tokens": 5, "more": None}),
        value(data={"tokens": 5.5}),
        value(data={"tokens": [5]}),
        value(scope="team:a"),
        value(hold="t"),
        value(hold="t", holdfinal=False),
        value(scope="t"),
    ],
)
def test_another_billing_field_changes_the_fingerprint(changed: bytes) -> None:
    assert print_of(changed) != print_of(value())


def test_events_without_scope_and_hold_keep_the_fingerprint_that_was_recorded() -> None:
    assert print_of(value()).hex() == "8a2ee54a"
    for same in (value(scope=""), value(hold=None), value(holdfinal=True), value(holdfinal=False)):
        assert print_of(same) == print_of(value())


def test_scope_hold_and_holdfinal_are_billing_fields_of_their_own() -> None:
    told_apart = [value(scope="t"), value(hold="t"), value(hold="t", holdfinal=False), value(scope="t", hold="t")]
    assert len(set(map(print_of, told_apart))) == len(told_apart)


def test_who_and_id_are_no_billing_fields() -> None:
    assert print_of(value(id="e2", source="elsewhere", subject="bob")) == print_of(value())


# --------------------------------------------------------------------------------------------------- control records


def test_a_seal_holds_for_its_topic_and_partition_only() -> None:
    sealed = seal(KEY, "usage", 3, b"body")
    assert unseal(KEY, "usage", 3, sealed) == b"body"
    for key, topic, partition in ((b"x" * 32, "usage", 3), (KEY, "other", 3), (KEY, "usage", 4)):
        with pytest.raises(BadMac):
            unseal(key, topic, partition, sealed)


@given(st.integers(0, 39), st.integers(1, 255))
def test_a_changed_byte_breaks_the_seal(at: int, flip: int) -> None:
    sealed = bytearray(seal(KEY, "usage", 0, b"body"))
    at = 4 + at % (len(sealed) - 4)
    sealed[at] ^= flip
    with pytest.raises(BadMac):
        unseal(KEY, "usage", 0, bytes(sealed))


@pytest.mark.parametrize("cut", [0, 4, 20, 35])
def test_a_cut_seal_does_not_hold(cut: int) -> None:
    with pytest.raises(BadMac):
        unseal(KEY, "usage", 0, seal(KEY, "usage", 0, b"body")[:cut])


@pytest.mark.parametrize(
    "control",
    [
        Tick(4),
        Owner(5),
        OpenAccount("a", "k", "starter"),
        Grant("a", "k", "lot", "paid", "10", "USD", scope=("tokens",)),
        Slices(3, 60, (("a", {"x": "1.5"}), ("b", {}))),
        SetCap("a", "k", "c", "10", "USD", "team:a", hard=False),
        SetScope("a", "k", "team:a", "suspended"),
        SetOverdraft("a", "k", None, "USD"),
        SetRateLimit("a", "k", "burst", 60),
        SetRule("a", "k", "r", OnBalance("5")),
        SetRule("a", "k", "r", OnCapPercent("c", 80)),
    ],
)
def test_a_control_record_is_read_as_it_was_written(control: Control) -> None:
    assert parse_control(msgspec.json.encode(control)) == control


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"kind":"nothing"}',
        b'{"kind":"tick"}',
        b'{"kind":"tick","epoch":"1"}',
        b'{"kind":"tick","epoch":1,"more":1}',
        b'{"kind":"owner","epoch":9223372036854775808}',
        b'{"kind":"catalogue","version":1,"effective_us":-9223372036854775809}',
        b'{"kind":"open_account","account":"","command_key":"k","plan":"p"}',
        b'{"kind":"open_account","account":"a","command_key":"k","plan":"\\u0000"}',
        b'{"kind":"grant","account":"a","command_key":"k","lot":"l","lot_kind":"paid","amount":10,"currency":"USD"}',
    ],
)
def test_another_body_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_control(body)


def slices(of: object, linger_us: int = 60) -> bytes:
    return json.dumps({"kind": "slices", "epoch": 1, "linger_us": linger_us, "of": of}).encode()


def test_slices_are_read_in_nano_units() -> None:
    control = parse_control(slices([["a", {"x": "1.5", "y": "0.000000001"}], ["b", {}]], LINGER_US_MAX))
    assert isinstance(control, Slices)
    assert control.quantities() == [("a", {"x": 1_500_000_000, "y": 1}), ("b", {})]


@pytest.mark.parametrize(
    "body",
    [
        slices([["a", {"x": "0"}]]),
        slices([["a", {"x": "-1"}]]),
        slices([["a", {"x": "1e3"}]]),
        slices([["a", {"x": "0.0000000001"}]]),
        slices([["a", {"x": 1}]]),
        slices([["a", {"": "1"}]]),
        slices([["", {}]]),
        slices([["a"]]),
        slices([["a", {}, 1]]),
        slices([[f"a{number}", {}] for number in range(SLICES_MAX + 1)]),
        slices([], 0),
        slices([], LINGER_US_MAX + 1),
        b'{"kind":"set_overdraft","account":"a","command_key":"k","currency":"USD"}',
        b'{"kind":"set_scope","account":"a","command_key":"k","scope":"s","standing":""}',
        b'{"kind":"set_rate_limit","account":"a","command_key":"k","limit":"","per_minute":1}',
        b'{"kind":"set_cap","account":"a","command_key":"k","cap":"c","amount":"1","currency":"USD","hard":1}',
    ],
)
def test_a_new_record_with_one_fault_is_malformed_as_a_whole(body: bytes) -> None:
    with pytest.raises(Malformed):
        parse_control(body)


def test_a_record_may_have_so_many_slices() -> None:
    parse_control(slices([[f"a{number}", {}] for number in range(SLICES_MAX)]))


# --------------------------------------------------------------------------------------------------- scope and hold


def test_scope_and_hold_are_read_as_they_were_sent() -> None:
    event = parse_usage(value(scope="team:a/ann", hold="h" * TOKEN_TEXT_MAX, holdfinal=False))
    assert (event.scope, event.hold, event.hold_final) == ("team:a/ann", "h" * TOKEN_TEXT_MAX, False)
    plain = parse_usage(value())
    assert (plain.scope, plain.hold, plain.hold_final) == ("", None, True)


def test_the_longest_scope_is_read_and_a_longer_one_is_not_even_remembered() -> None:
    """What is asked of a scope is kept; megabytes that anybody sends are not."""
    longest = "/".join(["n" * 64] * 8)
    assert len(longest) == SCOPE_TEXT_MAX and parse_usage(value(scope=longest)).scope == longest
    kept = is_scope.cache_info().currsize
    with pytest.raises(Malformed, match="scope"):
        parse_usage(value(scope=longest + "n"))
    assert is_scope.cache_info().currsize == kept


@pytest.mark.parametrize(
    "changes",
    [
        {"scope": "/"},
        {"scope": "a//b"},
        {"scope": "a b"},
        {"scope": "n" * 65},
        {"scope": "/".join("abcdefghi")},
        {"scope": None},
        {"scope": 5},
        {"hold": ""},
        {"hold": "h" * (TOKEN_TEXT_MAX + 1)},
        {"hold": "h\x00"},
        {"hold": 5},
        {"holdfinal": "true"},
        {"holdfinal": None},
    ],
)
def test_another_scope_or_hold_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed):
        parse_usage(value(**changes))


def test_a_digest_tells_bodies_apart() -> None:
    assert len(command_digest(b"a")) == 16
    assert command_digest(b"a") != command_digest(b"b")
