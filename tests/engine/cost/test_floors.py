"""Margin floors: one crossing until it recovers, and nothing of an hour that says nothing."""

from msgspec.json import decode
from msgspec.structs import replace

from engine.alerts import Standing
from engine.cost.floors import Floor, FloorAlert, Of, Sight, look, percent_text
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import Margin

H = 490_000 * HOUR_US
FLOOR = Floor("large-20", Of.MODEL, "large", 200, 250, "critical")


def hour(revenue: int, cost: int, without_cost: int = 0) -> list[tuple[str, Margin]]:
    return [("USD", Margin(revenue, cost, 3, without_cost))]


def looked(*hours: list[tuple[str, Margin]]) -> list[FloorAlert]:
    floor, told = FLOOR, []
    for number, sums in enumerate(hours):
        sight = look(floor, H + number * HOUR_US, sums)
        floor = replace(floor, standing=sight.standing)
        if sight.alert is not None:
            told.append(sight.alert)
    return told


def test_a_margin_below_the_floor_is_told_once_until_it_has_recovered() -> None:
    told = looked(hour(100, 80), hour(100, 81), hour(100, 99), hour(100, 79), hour(100, 75), hour(100, 90))
    bodies = [decode(alert.body) for alert in told]
    assert [(body["type"], body["data"]["ordinal"], body["data"]["hour"]) for body in bodies] == [
        ("margin.crossed", 1, "2025-11-24T17:00:00Z"),
        ("margin.recovered", 1, "2025-11-24T20:00:00Z"),
        ("margin.crossed", 2, "2025-11-24T21:00:00Z"),
    ]
    assert len({alert.alert_id for alert in told}) == 3
    assert bodies[0]["id"] == told[0].alert_id
    assert bodies[0]["data"] == {
        "account": "",
        "rule": "large-20",
        "of": "model",
        "subject": "large",
        "hour": "2025-11-24T17:00:00Z",
        "ordinal": 1,
        "level": "critical",
        "percent": "19.0",
        "floor_percent": "20.0",
        "currency": "USD",
        "revenue": "0.000000000100",
        "cost": "0.000000000081",
        "requests": 3,
    }
    assert looked(hour(100, 81))[0].alert_id == looked(hour(200, 170))[0].alert_id, "an id of the crossing alone"


def test_what_is_not_known_changes_nothing() -> None:
    below = replace(FLOOR, standing=Standing(1, active=True))
    for floor in (FLOOR, below):
        for sums in ([], hour(0, 5), hour(100, 99, without_cost=1), [*hour(100, 0), ("EUR", Margin(1, 1, 1, 1))]):
            assert look(floor, H, sums) == Sight(floor.standing)


def test_of_several_currencies_the_least_margin_counts() -> None:
    (alert,) = looked([("EUR", Margin(100, 90, 1)), ("USD", Margin(100, 1, 1))])
    assert decode(alert.body)["data"]["currency"] == "EUR"


def test_per_cent_have_one_digit_and_their_sign() -> None:
    assert [percent_text(permille) for permille in (1_000, 255, 0, -5, -1_234)] == [
        "100.0",
        "25.5",
        "0.0",
        "-0.5",
        "-123.4",
    ]
