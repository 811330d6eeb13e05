"""`tallygate explain`: each decision and number of a charge on a terminal."""

import orjson
import pytest

from actors.cli.terminal import WRONG_INPUT
from engine.prices.shared import SHARED
from engine.quantity_grants import GRANTED
from tests.actors.cli.calling import ANSWERS, RATING, FakeApi, beside_up, call


def test_a_charge_is_explained_tier_by_tier(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("explain", "req/1", "--account", "acme", "--source", "gateway/eu-1")
    assert result.exit_code == 0, result.stderr
    for text in (
        "req-8812 from gateway/eu-1: 0.740000000000 USD, paid by acme",
        "partition 3, offset 18244, appended 2026-11-22T10:00:00.120000Z; final",
        "rated at: 2026-11-22T10:00:00Z (the event's own time)",
        "plan starter, catalogue version 2",
        "output (output_tokens)",
        "model=large",
        "1: 0 to 2000000",
        "2: above 2000000",
        "all (1950000 used before)",
        "0.240000000000",
        "paid by:  lot welcome (promo) 19.740000000000 of usage from 2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z, all",
        "counts in: cap monthly (hard): 19.740000000000 of 500 spent in its month",
        'alert.crossed {"account":"acme","rule":"low"',
    ):
        assert text in result.stdout
    assert "re-pricing" not in result.stdout
    shown = call("explain", "req/1", "--account", "acme", "--source", "gateway/eu-1", "--json")
    assert orjson.loads(shown.stdout) == RATING
    assert api.queries == ["account=acme&source=gateway/eu-1"] * 2


def test_a_charge_says_what_it_re_priced_and_which_hold_it_settles(
    api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside_up(api.url)
    extra = {"repricing": "0.030000000000", "beyond": "-0.020000000000", "amount": "0.750000000000"}
    beyond = RATING["lines"][0]["tiers"][1] | {"tier": -1, "charged": "0"}
    included = RATING["lines"][0]["tiers"][0] | {"tier": 0, "charged": "0"}
    free = [beyond | {"tier": number, "above": "0"} for number in (GRANTED, SHARED)]
    line = RATING["lines"][0] | extra | {"tiers": [included, beyond, *free]}
    hold = {"id": "3.7.41", "scope": "", "admitted": RATING["rated_at"], "settled": "over_hold"}
    due = RATING["lines"][0] | {"tiers": [], "quantity": "0", "beyond": "-7", "amount": "-7", "due": "minimum"}
    changed = RATING | {"lines": [line, due], "hold": hold, "final": False, "usage_basis": "estimated"}
    monkeypatch.setitem(ANSWERS, ("GET", "/v1/events/e/rating"), (200, changed))
    told = call("explain", "e", "--account", "acme", "--source", "s").stdout
    for text in (
        "re-pricing of earlier usage",
        "0.030000000000",
        "later versions, rounding",
        "no usage: minimum of its period",
        "0.750000000000",
        "included: 0 to",
        "beyond the maximum",
        "a quantity grant",
        "an allowance",
        "hold 3.7.41 was admitted then; over_hold",
        "provisional",
        "not measured",
    ):
        assert text in told


def test_a_charge_shows_its_corrections_and_what_is_due(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up(api.url)
    line = RATING["lines"][0] | {"quantity": "-80000", "amount": "-0.740000000000", "tiers": [], "own": "0"}
    cancel = {"kind": "cancel", "offset": 18300, "adjusts": None, "amount": "-0.740000000000", "lines": [line]}
    changed = RATING | {"corrections": [cancel], "due": "0"}
    monkeypatch.setitem(ANSWERS, ("GET", "/v1/events/e/rating"), (200, changed))
    told = call("explain", "e", "--account", "acme", "--source", "s").stdout
    for text in ("cancel at offset 18300: -0.740000000000", "-80000", "due:      0 USD"):
        assert text in told


def test_what_was_not_rated_is_said_on_one_line(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("explain", "gone", "--account", "acme", "--source", "s")
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert result.stderr == "No such event was rated. Check the id.\n"


def test_an_adjustment_of_a_closed_period_says_so(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up(api.url)
    closed = {"adjusts": "2026-10-01T00:00:00Z"}
    cancel = {"kind": "cancel", "offset": 18300, "amount": "-0.740000000000", "lines": RATING["lines"]} | closed
    changed = RATING | {"corrections": [cancel]} | closed
    monkeypatch.setitem(ANSWERS, ("GET", "/v1/events/e/rating"), (200, changed))
    told = call("explain", "e", "--account", "acme", "--source", "s").stdout
    assert "adjusts:  the closed period from 2026-10-01T00:00:00Z" in told
    assert "-0.740000000000, an adjustment of the closed period from 2026-10-01T00:00:00Z" in told
