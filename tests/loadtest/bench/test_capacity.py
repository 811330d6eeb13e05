"""The capacity model, on figures small enough to do in one's head."""

from typing import Any

import pytest

from loadtest.bench.capacity import Costs, costs_of, foretold_per_s, model, need_of


def step(rated_per_s: float, kept_up: bool = True, **cores: float) -> dict[str, Any]:
    return {"rated_per_s": rated_per_s, "kept_up": kept_up, "cores": cores}


def test_an_event_costs_the_cores_over_the_rate() -> None:
    costs = costs_of(step(10_000, shard=0.5, broker=0.2, postgres=0.1, load=0.3, bench=0.1))
    assert (costs.shard_us, costs.broker_us, costs.postgres_us) == pytest.approx((50, 20, 10))
    assert costs.all_us == pytest.approx(120)
    with pytest.raises(ValueError, match="kept up"):
        costs_of(step(10_000, kept_up=False, shard=1.0))


def test_a_machine_is_full_when_its_cores_or_its_one_shard_are() -> None:
    assert foretold_per_s(Costs(50, 20, 10, 20), cores=2) == pytest.approx(20_000), "both cores"
    assert foretold_per_s(Costs(50, 20, 10, 20), cores=16) == pytest.approx(20_000), "the shard's one core"
    assert foretold_per_s(Costs(20, 40, 20, 20), cores=2) == pytest.approx(20_000)


def test_a_month_needs_its_peak() -> None:
    need = need_of(2_592_000_000, Costs(60, 30, 5, 0), customers=100_000)
    assert (need.mean_per_s, need.peak_per_s) == (1_000, 10_000)
    assert need.shards == 2, (
        "0.6 cores of work fill one shard as far as it may be filled; one more is there to take over"
    )
    assert need.broker_cores == 0.5
    assert need.postgres_cores == 0.3, "10,000 changed accounts a second at 20 µs, of which 0.6 of a core is the most"
    assert need.first_to_end == "one Postgres"
    assert need.kafka_mb_per_s == pytest.approx(10_000 * 580 / 1e6, abs=0.1)
    larger = need_of(25_920_000_000, Costs(60, 30, 5, 0), customers=100_000)
    assert larger.shards == 10
    assert larger.peak_per_s == 100_000


def test_the_model_is_held_against_the_machine_it_was_made_of() -> None:
    ramp = {
        "steps": [
            step(5_000, shard=0.3, broker=0.1, postgres=0.1),
            step(10_000, shard=0.5, broker=0.25, postgres=0.25),
            step(15_000, kept_up=False, shard=1.0),
        ],
        "saturation_per_s": 16_000,
    }
    told = model(ramp, cores=2)
    assert told["core_us_per_event"] == {"shard": 50.0, "broker": 25.0, "postgres": 25.0, "others": 0.0}
    assert told["foretold_saturation_per_s"] == 20_000
    assert told["foretold_over_measured"] == 1.25
    assert [month["events_a_month"] for month in told["months"]] == [10**9, 10**10, 10**11]
