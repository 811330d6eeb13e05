"""Sums by model and customer, worked by hand. That they add up, whatever there is: tests/laws/test_cost_whatif.py."""

from engine.cost.economics import NOBODY, Costs, Idle, Takings, at_utilisation, economics
from engine.cost.rollup import Key, Sums
from engine.cost.token_costs import ModelTokenCosts, TokenClass
from engine.cost.window import Bucket

D = 10**12
TOKENS = {"atlas": ModelTokenCosts(2 * D, 0, 4 * D)}


def fleet() -> dict[Key, Sums]:
    """r1 costs $6 of requests, $4 idle and $1 overhead; r2 was there for the same model, and served nobody: $3."""
    return {
        Key(0, "r1", "atlas", Bucket.DIRECT, "acme"): Sums(2 * D, requests=1, computed=500_000, output=100_000),
        Key(0, "r1", "atlas", Bucket.DIRECT, "zen"): Sums(4 * D, requests=2, computed=500_000, output=300_000),
        Key(0, "r1", "atlas", Bucket.HARD_IDLE): Sums(4 * D),
        Key(0, "r1", "atlas", Bucket.OVERHEAD): Sums(1 * D),
        Key(0, "r2", "atlas", Bucket.COLD_START): Sums(3 * D),
    }


def costs() -> Costs:
    found = Costs()
    found.add(fleet(), TOKENS)
    return found


def test_idle_is_borne_in_proportion_to_use() -> None:
    found = economics(costs(), [Takings("atlas", "acme", 9 * D), Takings("atlas", "zen", 5 * D)], Idle())
    assert [(line.account, line.direct, line.loaded, line.margin) for line in found.lines] == [
        ("acme", 2 * D, 4_666_666_666_667, 4_333_333_333_333),
        ("zen", 4 * D, 9_333_333_333_333, -4_333_333_333_333),
    ]
    assert (found.unspread, found.unknown, found.utilisation_ppm) == (0, 0, 461_538)


def test_a_named_payer_bears_all_of_it_and_without_a_spread_nobody_does() -> None:
    kept = economics(costs(), [], Idle(payers={"atlas": "big"}))
    assert {line.account: line.loaded // D for line in kept.lines} == {"acme": 2, "big": 8, "zen": 4}
    none = economics(costs(), [], Idle(False))
    assert ([line.loaded for line in none.lines], none.unspread) == ([2 * D, 4 * D], 8 * D)


def test_a_replica_that_nobody_used_is_borne_by_nobody_if_its_model_is_not_used_either() -> None:
    alone = Costs()
    alone.add({Key(0, "r", "odd", Bucket.HARD_IDLE): Sums(5)}, {})
    found = economics(alone, [], Idle())
    assert (found.lines, found.unspread, found.utilisation_ppm) == ([], 5, 0)


def test_unit_costs_and_floors_are_per_million_tokens() -> None:
    """1 M tokens in cost $2 of the $6, loaded 14/6 of it; 0.4 M out $4: $10 a million."""
    (model,) = economics(costs(), [], Idle()).models
    assert model.unit_cost(TokenClass.UNCACHED_INPUT, loaded=False) == 2 * D
    assert model.unit_cost(TokenClass.UNCACHED_INPUT, loaded=True) == 4_666_666_666_667
    assert model.unit_cost(TokenClass.OUTPUT, loaded=False) == 10 * D
    assert model.unit_cost(TokenClass.CACHED_INPUT, loaded=False) is None  # there were none
    assert model.price_floor(TokenClass.OUTPUT, 0) == 23_333_333_333_334  # up
    assert model.price_floor(TokenClass.OUTPUT, 500_000) == 46_666_666_666_667
    assert (model.requests, model.unsplit) == (3, 0)


def test_what_is_not_known_is_null_and_never_a_cost_of_0() -> None:
    partly = Costs()
    partly.add(fleet() | {Key(0, "r1", "atlas", Bucket.DIRECT, "new"): Sums(0, unknown=2, requests=1)}, TOKENS)
    found = economics(partly, [Takings("atlas", "acme", 9 * D, unserved=1)], Idle())
    assert {line.account: line.margin is None for line in found.lines} == {"acme": True, "new": True, "zen": False}
    assert (found.models[0].margin, found.models[0].unit_cost(TokenClass.OUTPUT, loaded=False)) == (None, None)
    assert found.unknown == 2
    idle = Costs()
    idle.add({Key(0, "r", "m", Bucket.UNATTRIBUTED): Sums(0, unknown=3)}, {})
    assert economics(idle, [], Idle()).unknown == 3


def test_nobody_s_requests_stand_on_a_line_of_their_own() -> None:
    found = Costs()
    found.add({Key(0, "r", "m", Bucket.DIRECT): Sums(7)}, {})
    assert [(line.account, line.loaded) for line in economics(found, [], Idle()).lines] == [(NOBODY, 7)]


def test_at_another_utilisation_there_are_as_many_gpus_as_it_takes() -> None:
    """$6 at 60 % are $10 of GPUs, as they were; at 80 % $7.50, with 0.75 of the overhead; r2 is gone."""
    same, more = at_utilisation(costs(), 600_000), at_utilisation(costs(), 800_000)
    assert same.rest == {"r1": {Bucket.HARD_IDLE: 4 * D, Bucket.OVERHEAD: D}}
    assert more.rest == {"r1": {Bucket.HARD_IDLE: 15 * D // 10, Bucket.OVERHEAD: 75 * D // 100}}
    assert economics(more, [], Idle()).utilisation_ppm == 800_000
