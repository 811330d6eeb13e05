"""What is shown: decimal text, null where nothing is known, and a projection by its name."""

import msgspec

from actors.whatif import Found
from actors.whatif_view import shown
from engine.cost.economics import Costs, Idle, Takings, economics
from engine.cost.rollup import Key, Sums
from engine.cost.token_costs import ModelTokenCosts
from engine.cost.window import Bucket

HOUR = 3_600_000_000
D = 10**12


def found() -> Found:
    costs = Costs()
    rows = {
        Key(0, "r", "m", Bucket.DIRECT, "acme"): Sums(6 * D, requests=2, computed=10**6, output=500_000),
        Key(0, "r", "m", Bucket.HARD_IDLE): Sums(2 * D),
        Key(0, "r", "odd", Bucket.DIRECT, "zen"): Sums(0, unknown=1),
    }
    costs.add(rows, {"m": ModelTokenCosts(D, 0, 5 * D)})
    sums = economics(costs, [Takings("m", "acme", 12 * D)], Idle())
    return Found(0, 2 * HOUR, 720 * HOUR, "USD", sums, sums, {Bucket.DIRECT: -1}, ["EUR"], 3)


def test_amounts_are_text_and_what_is_not_known_is_null() -> None:
    answer = msgspec.to_builtins(shown(found(), 500_000))
    assert (answer["from"], answer["currency"], answer["target_margin_percent"]) == (
        "1970-01-01T00:00:00Z",
        "USD",
        "50",
    )
    assert (answer["actual"]["is_projection"], answer["projection"]["is_projection"]) == (False, True)
    assert answer["differs"] == {"direct": "-0.000000000001"}
    model, odd = answer["actual"]["models"]
    assert (model["loaded"], model["margin"], odd["margin"]) == ("8", "4", None)
    assert model["tokens"]["output"] == {
        "tokens": 500_000,
        "direct": "10",
        "loaded": "13.333333333333",
        "price_floor": "26.666666666667",
    }
    assert model["tokens"]["cached_input"] == {"tokens": 0, "direct": None, "loaded": None, "price_floor": None}
    assert model["projected_month"] == {"cost": "2880", "revenue": "4320", "margin": "1440"}
    assert answer["actual"]["utilisation_percent"] == "75"
    assert [(each["account"], each["margin"]) for each in answer["actual"]["customers"]] == [
        ("acme", "4"),
        ("zen", None),
    ]
