"""Derived dimensions: bands, mappings, defaults; and what a request that has not run may still come to."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.meters.dimensions import BadDimension, Band, Dimension
from engine.meters.fields import keys_of
from engine.money import NANO

CONTEXT = Dimension("context", "tokens", (Band("short", 100 * NANO), Band("mid", 200 * NANO), Band("long", None)))
VALUES = {"eu-1": "eu", "eu-2": "eu", "7": "seven", "true": "yes"}
REGION = Dimension("region", "zone", values={key: VALUES[text] for key, text in keys_of(VALUES).items()})


@pytest.mark.parametrize(
    ("tokens", "band"),
    [(-1, "short"), (0, "short"), (100, "short"), (Decimal("100.000000001"), "mid"), ("200", "mid"), (201, "long")],
)
def test_a_band_takes_what_is_above_the_one_before_it_up_to_and_with_its_end(tokens: Any, band: str) -> None:
    assert CONTEXT.value({"tokens": tokens}) == band


@pytest.mark.parametrize(
    ("zone", "value"), [("eu-1", "eu"), ("eu-2", "eu"), ("us-1", "us-1"), (7, "seven"), ("7", "seven"), (True, "yes")]
)
def test_a_mapping_leaves_alone_what_it_does_not_name(zone: Any, value: str) -> None:
    assert REGION.value({"zone": zone}) == value


def test_otherwise_takes_whatever_is_not_named_and_default_what_is_missing() -> None:
    closed = Dimension("region", "zone", values=REGION.values, otherwise="elsewhere", default="unknown")
    found = [closed.value({"zone": zone}) for zone in ("eu-1", "us-1", 8, False)]
    assert found == ["eu", "elsewhere", "elsewhere", "elsewhere"]
    assert closed.value({}) == closed.value({"zone": None}) == "unknown"


@pytest.mark.parametrize(
    ("dimension", "data"),
    [
        (CONTEXT, {}),
        (CONTEXT, {"tokens": "many"}),
        (CONTEXT, {"tokens": True}),
        (REGION, {"zone": 8}),
        (REGION, {"zone": ""}),
        (REGION, {"zone": "z" * 129}),
        (REGION, {"zone": ["eu-1"]}),
    ],
)
def test_what_cannot_be_worked_out_names_field_and_dimension(dimension: Dimension, data: dict[str, Any]) -> None:
    with pytest.raises(BadDimension, match=rf"data\.{dimension.of} \(dimension {dimension.name}\)"):
        dimension.value(data)


@pytest.mark.parametrize(
    ("dimension", "texts", "values"),
    [
        (CONTEXT, None, ("long", "mid", "short")),
        (CONTEXT, ("50", "150"), ("mid", "short")),
        (CONTEXT, ("many",), ("long", "mid", "short")),
        (REGION, None, (None,)),
        (REGION, ("eu-1", "us-1"), ("eu", "us-1")),
        (REGION, ("7.0",), ("7.0", "seven")),  # as text, or as a number
        (Dimension("r", "zone", values={"a": "b"}, otherwise="c", default="d"), None, ("b", "c", "d")),
        (Dimension("r", "zone", default="d"), None, (None,)),
    ],
)
def test_what_a_request_may_reach(
    dimension: Dimension, texts: tuple[str, ...] | None, values: tuple[str | None, ...]
) -> None:
    if dimension is REGION and texts == ("7.0",):
        with pytest.raises(BadDimension):
            REGION.value({"zone": Decimal("8.0")})
    assert dimension.reachable(texts) == values


@given(
    st.sampled_from([CONTEXT, Dimension("r", "zone", values=REGION.values, otherwise="x", default="y"), REGION]),
    st.integers(-300, 300) | st.sampled_from(["eu-1", "eu-2", "us-1", "7", "7.0", "150", True, False, None]),
)
def test_every_value_that_comes_was_reachable(dimension: Dimension, sent: Any) -> None:
    data = {} if sent is None else {dimension.of: sent}
    try:
        value = dimension.value(data)
    except BadDimension:
        return
    for texts in (None, None if sent is None else (str(sent).lower() if isinstance(sent, bool) else str(sent),)):
        reachable = dimension.reachable(texts)
        assert value in reachable or None in reachable
