import pytest

from actors.web.limits import (
    _STRINGS,
    JSON_DEPTH_MAX,
    JSON_KEYS_MAX,
    JSON_NUMBER_MAX,
    JSON_STRING_MAX,
    JsonRefused,
    check_json,
    clean,
)

AT_THE_LIMIT = [
    b"[" * JSON_DEPTH_MAX + b"]" * JSON_DEPTH_MAX,
    b"[" + b"[]," * 40 + b"[]]",
    b"{" + b",".join(b'"k%d":1' % number for number in range(JSON_KEYS_MAX)) + b"}",
    b"9" * JSON_NUMBER_MAX,
    b"-1.5e18",
    b"1E-18",
    b'"' + b"x" * JSON_STRING_MAX + b'"',
    b'"[[[[[[[[[[[[[[[[[[[[[["',
    rb'"\"[[[[[[[[[[[[[[[[[[[[[[\\"',
    rb'"\ud83d\ude00 \\u0000"',
    b' {"a":[1,{"b":null}]} ',
    b'{"a":{"a":1},"b":{"a":1}}',
]
BEYOND_IT = [
    b"[" * (JSON_DEPTH_MAX + 1) + b"]" * (JSON_DEPTH_MAX + 1),
    b'{"a":' * 100_000,
    b"{" + b",".join(b'"k%d":1' % number for number in range(JSON_KEYS_MAX + 1)) + b"}",
    b'{"a":1,"a":1}',
    rb'{"a":1,"\u0061":2}',
    b'{"x":[{"a":1,"a":2}]}',
    b"9" * (JSON_NUMBER_MAX + 1),
    b"0." + b"1" * JSON_NUMBER_MAX,
    b"1e19",
    b"1e-19",
    b"1e999999999",
    b'"' + b"x" * (JSON_STRING_MAX + 1) + b'"',
    rb'"\u0000"',
    rb'{"\u0000":1}',
    rb'["\ud800"]',
    rb'{"a":"\udc00\ud800"}',
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b'"\x00"',
    b"NaN",
    b"[-Infinity]",
    b"",
    b"{",
    b"{} {}",
    b"\xef\xbb\xbf{}",
    b"'a'",
    b"01",
]


@pytest.mark.parametrize("body", AT_THE_LIMIT)
def test_what_is_within_the_limits_passes(body: bytes) -> None:
    check_json(body)


@pytest.mark.parametrize("body", BEYOND_IT, ids=range(len(BEYOND_IT)))
def test_what_is_beyond_them_is_refused(body: bytes) -> None:
    with pytest.raises(JsonRefused):
        check_json(body)


def test_a_million_digits_are_refused_without_being_computed() -> None:
    with pytest.raises(JsonRefused, match="characters"):
        check_json(b"1" * 1_000_000)


@pytest.mark.parametrize("text", [rb'"\"\"\"', rb'"ab\\', b'"', b'"a', rb'"\"a\" b'])
def test_a_string_that_does_not_end_is_looked_through_once(text: bytes) -> None:
    """Not again from each quote in it: 64 KiB of them would hold the replica for half a minute."""
    (found,) = _STRINGS.finditer(text)
    assert found.span() == (0, len(text))


def test_too_many_keys_are_not_compared_with_each_other() -> None:
    keys = [b'"k%d":1' % number for number in range(JSON_KEYS_MAX)]
    with pytest.raises(JsonRefused, match="has 65 keys; 64 is the limit"):
        check_json(b"{" + b",".join([*keys, keys[0]]) + b"}")
    with pytest.raises(JsonRefused, match="'k0' stands twice"):
        check_json(b"{" + b",".join([*keys[:-1], keys[0]]) + b"}")


@pytest.mark.parametrize(
    ("text", "is_clean"), [("", True), ("é😀", True), ("a\x00", False), ("é\x00", False), ("\ud83d", False)]
)
def test_clean_is_what_a_database_and_utf_8_can_hold(text: str, is_clean: bool) -> None:
    assert clean(text) is is_clean
