"""Reading an event's data: paths, and what is compared with what."""

from decimal import Decimal
from typing import Any

import pytest

from engine.events import Scientific
from engine.meters.fields import as_sent, key_of, keys_of, value_at
from engine.money import NANO, NotADecimal

DATA: dict[str, Any] = {"a": 1, "b.c": 2, "b": {"c": 3, "d": {"e": 4, "f.g": 5}}, "n": None, "list": [{"x": 1}]}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", 1),
        ("b.c", 2),  # the field of that very name comes first
        ("b.d.e", 4),
        ("b.d.f.g", 5),
        ("n", None),
        ("missing", None),
        ("a.b", None),
        ("list.x", None),
        ("b.d.missing", None),
        ("", None),
    ],
)
def test_a_path_finds_the_field_of_its_name_or_goes_into_objects(path: str, value: Any) -> None:
    assert value_at(DATA, path) == value


@pytest.mark.parametrize(
    ("value", "key"),
    [("a", "a"), ("5", "5"), (5, 5 * NANO), (Decimal("5.0"), 5 * NANO), (True, "true"), (False, "false")],
)
def test_numbers_are_compared_by_what_they_are_worth(value: Any, key: str | int) -> None:
    assert key_of(value) == key


@pytest.mark.parametrize("value", [None, [], {}, 10**18, Decimal("0.0000000001"), Scientific("5e0")])
def test_what_is_no_plain_value_is_not_compared(value: Any) -> None:
    with pytest.raises(NotADecimal):
        key_of(value)


def test_a_text_of_a_catalogue_stands_for_itself_and_for_the_number_that_it_reads_as() -> None:
    assert keys_of(["eu", "5.0"]) == {"eu": "eu", "5.0": "5.0", 5 * NANO: "5.0"}
    assert list(as_sent(["eu", "5.0"])) == ["eu", "5.0", Decimal("5.0")]
