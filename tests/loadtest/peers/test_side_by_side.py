"""The comparison's own sums; the peer itself needs `make bench-peers`."""

from loadtest.peers.side_by_side import HELD, beside, freed, in_turns


async def test_contenders_take_turns_and_the_first_round_warms_up() -> None:
    order: list[str] = []

    async def one() -> None:
        order.append("one")

    async def two() -> None:
        order.append("two")

    found = await in_turns({"one": one, "two": two}, rounds=2, calls=3)
    assert order == (["one"] * 3 + ["two"] * 3) * 3
    assert found["one"]["count"] == found["two"]["count"] == 6
    assert found["one"]["per_s"] > 0


def test_a_ratio_is_ours_over_the_peers() -> None:
    assert beside({"ours": {"per_s": 300.0}, "litellm": {"per_s": 10.0}})["times"] == 30.0


def test_what_a_dead_process_held_is_told_with_when_it_is_free() -> None:
    told = freed(3)
    assert float(told["held_dollars"]) > 0
    assert told["ttl_s"] < told["free_after_s"] < 600
    assert HELD == 100
