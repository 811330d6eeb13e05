"""Packets dropped between one shard and its servers, under load, in a network namespace of the run's own. Needs root."""

from pathlib import Path

import pytest

from loadtest.chaos.packets import cut_packets, why_not

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(why_not() is not None, reason=f"no packets can be dropped here: {why_not()}"),
]


async def test_a_shard_whose_packets_are_dropped_one_way_loses_nothing(tmp_path: Path) -> None:
    """The connections live through it: what was on its way arrives late, and finds itself replaced."""
    made = await cut_packets(tmp_path / "run", 2.5, ["down"])
    assert made.judged.wrong == []
    assert made.judged.equal
    assert set(made.cuts) == {"postgres.down", "kafka.down"}
    assert all(packets > 0 for packets in made.cuts.values())
    assert made.judged.history.stale == 0
    assert made.declared_dead >= 1
    assert made.events > 0
