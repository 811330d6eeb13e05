"""Margin actors and the watch over floors, under seeded faults, come to what one process does that nothing ever happened to;
and a safeguard that is taken away is noticed.

`python -m tests.simulation.run --margins --seeds 1000` runs more seeds.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final
from unittest import mock

import msgspec
import pytest

from actors.margin_actor import MarginActor
from actors.margin_floors import Looked
from actors.margin_store import MarginCheckpoint, MarginClaim
from actors.ports import AlertRow
from engine.cost.margin import MarginFold
from tests.actors.test_margin_actor import Stored
from tests.simulation import lives, margins
from tests.simulation.lives import COMMIT_FAULTS
from tests.simulation.margins import LOG_CALLS, STORE_CALLS, MarginWorld, Ways, simulate_margins
from tests.simulation.run import main

SEEDS: Final = range(170)
SITES: Final = {
    *(f"{call}.before" for call in (*STORE_CALLS, *LOG_CALLS)),
    *(f"{call}.after" for call in STORE_CALLS),
    *("deliveries.before", "post.before", "post.after", "sleep"),
}

_stored_commit, _write, _take = Stored.commit, MarginWorld.write, MarginActor._take


async def _commit_at_any_epoch(self: Stored, checkpoints: Sequence[MarginCheckpoint]) -> None:
    for checkpoint in checkpoints:
        last = self.at.get(checkpoint.partition)
        epoch, seq = self.epochs[checkpoint.partition], 1 if last is None else last.ckpt_seq + 1
        await _stored_commit(self, [msgspec.structs.replace(checkpoint, epoch=epoch, ckpt_seq=seq)])


def _forget_what_was_told(_self: MarginFold, _rows: object, _closed_us: int) -> None:
    pass


async def _own_without_comparing(self: MarginActor, _claims: Mapping[int, MarginClaim]) -> None:
    pass


async def _go_on_as_an_owner(self: MarginActor) -> None:
    """As if nothing were let go when what was told cannot be read."""
    self._let_go()
    self.__dict__["_let_go"] = lambda: None
    try:
        await _take(self)
    finally:
        del self.__dict__["_let_go"]


async def _read_nothing_again(self: MarginActor, topic: str, partition: int, _closed_us: int) -> int:
    _, end = await self._reader.bounds(topic, partition)
    return end


def _write_over_another(self: MarginWorld, looked: Looked, _epoch: int) -> AlertRow | None:
    name = looked.kept.floor.floor
    place = msgspec.structs.replace(self.floors[name].floor, next_us=looked.kept.floor.next_us)
    self.floors[name] = msgspec.structs.replace(self.floors[name], floor=place)
    return _write(self, looked, self.stored.epochs[0])


async def _nothing_waits(_self: Ways, _partition: int) -> list[AlertRow]:
    return []


async def _look_at_once(_self: Ways, _partitions: int) -> int | None:
    return _self._world.wall_us() + 10 * margins.SETTLE_US


def _patch(owner: Any, name: str, replacement: Any) -> Callable[[], Any]:
    return lambda: mock.patch.object(owner, name, replacement)


# What is taken away, and a seed that notices.
ABLATIONS: Final[dict[str, tuple[tuple[Callable[[], Any], ...], int]]] = {
    "a checkpoint of an epoch that is over is taken": ((_patch(Stored, "commit", _commit_at_any_epoch),), 2),
    "what an earlier owner told is not taken back": ((_patch(MarginFold, "told", _forget_what_was_told),), 1),
    "what an earlier owner told is not looked at": ((_patch(MarginActor, "_compare", _own_without_comparing),), 0),
    "who could not read what was told goes on": ((_patch(MarginActor, "_take", _go_on_as_an_owner),), 135),
    "a new owner reads nothing again": ((_patch(MarginActor, "_offset_from", _read_nothing_again),), 0),
    "a floor is written over by whoever looked at another time": (
        (_patch(MarginWorld, "write", _write_over_another),),
        11,
    ),
    "what was not told is not taken up": ((_patch(Ways, "waiting_alerts", _nothing_waits),), 0),
    "an hour is looked at before all of it has come": ((_patch(Ways, "told_us", _look_at_once),), 0),
}


def test_every_seed_ends_as_if_nothing_had_happened_and_every_fault_strikes() -> None:
    fired: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    for seed in SEEDS:
        outcome = simulate_margins(seed)
        assert not outcome.violations, outcome.told()
        reached += outcome.reached
        for (kind, site), count in outcome.fired.items():
            fired.update({site: count, kind: count})
    assert fired.keys() >= {*SITES, *COMMIT_FAULTS, "kill", "pause", "away"}
    assert len(reached) == 6, f"what never comes about proves nothing: {reached}"


def test_a_seed_that_fails_says_how_it_is_seen_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lives, "unlike", lambda *_: ["the canary is dead"])
    assert main(["--margins", "--seed", "5"]) == 1
    assert "again: python -m tests.simulation.run --margins --seed 5" in capsys.readouterr().out


def test_a_seed_takes_the_same_steps_again() -> None:
    assert simulate_margins(3) == simulate_margins(3)


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_safeguard_taken_away_is_noticed(name: str) -> None:
    patches, seed = ABLATIONS[name]
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch())
        assert simulate_margins(seed).violations, f"seed {seed} does not notice any more that {name}: find another"
