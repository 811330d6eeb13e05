"""The cost of an event, on a scale of seconds: that the figures are of what they say."""

from collections import Counter
from random import Random

import orjson
import pytest

from engine.catalog import load_catalogue
from loadtest.bench import scale
from loadtest.bench.scale import by_customers, by_prices, drawn, many_prices, rate_all
from loadtest.engine_bench import event, idle_rows, name_of, prepared


def silent(_: str) -> None:
    pass


def test_customers_are_skewed_or_all_alike_and_follow_their_seed() -> None:
    skewed, alike = Counter(drawn(100, 10_000, 1.1)), Counter(drawn(100, 10_000, 0.0))
    assert skewed.most_common(1)[0][1] > 1_500
    assert alike.most_common(1)[0][1] < 200
    assert drawn(100, 50, 1.1) == drawn(100, 50, 1.1) != drawn(100, 50, 1.1, seed=2)


def test_more_customers_leave_more_accounts_dirty() -> None:
    few, many = by_customers((10, 1_000), 2_000, silent)
    assert (
        few["zipf"]["dirty_per_cut"] <= 10 < many["zipf"]["dirty_per_cut"] < many["uniform"]["dirty_per_cut"] <= 1_000
    )
    assert few["zipf"]["us"] > 0


def test_the_more_accounts_have_changed_the_later_a_checkpoint_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PER_S", 100), ("CHANGED_PER_S", 20), ("AHEAD", 20)):
        monkeypatch.setattr(scale, name, value)
    fold, names = prepared(0), [name_of(number) for number in range(120)]
    fold.load(prepared(0).header(), idle_rows(len(names)), [], [])
    draw = Random(1)
    once = [event(number, name, draw) for number, name in enumerate(names)]
    assert rate_all(fold, 0, [name.encode() for name in names], once) == [120], "a second for each twenty"
    busy = [event(number, names[0], draw) for number in range(200, 320)]
    assert rate_all(fold, len(once), [names[0].encode()] * len(busy), busy) == [1, 1], "no sooner than a second"


def test_a_plan_may_have_a_thousand_prices() -> None:
    assert len(load_catalogue(1, many_prices(1_000)).plans["plan"].prices) == 1_000
    assert len(orjson.loads(many_prices(3))["plans"]["plan"]["prices"]) == 3
    rows = by_prices((1, 5), 500, silent)
    assert [row["prices"] for row in rows] == [1, 5]
    assert all(row["us"] > 0 for row in rows)
