"""Cost actors under seeded faults tell, in the end, what one tells that nothing ever happened to; and a safeguard that is
taken away is noticed.

`python -m tests.simulation.run --costs --seeds 1000` runs more seeds.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final
from unittest import mock

import msgspec
import pytest

from actors.cost import CostActor, _Owned
from actors.cost_store import CostCheckpoint
from actors.ports import CommitUnknown
from engine.cost.attribution import Attribution, SetAside
from engine.cost.rollup import Key, Sums
from tests.actors.cost_rig import Stored
from tests.simulation import lives
from tests.simulation.costs import LOG_CALLS, STORE_CALLS, Storing, simulate_costs
from tests.simulation.lives import COMMIT_FAULTS
from tests.simulation.run import main

SEEDS: Final = range(60)
SITES: Final = {
    *(f"{call}.before" for call in (*STORE_CALLS, *LOG_CALLS)),
    *(f"{call}.after" for call in (*STORE_CALLS, *LOG_CALLS)),
    "sleep",
}

_commit, _stored_commit, _reach = Storing.commit, Stored.commit, Attribution.reach


async def _commit_at_any_epoch(self: Stored, checkpoints: Sequence[CostCheckpoint]) -> None:
    now = {"epoch": self.epoch, "ckpt_seq": self.ckpt_seq + 1}
    await _stored_commit(self, [msgspec.structs.replace(each, **now) for each in checkpoints])


async def _commit_at_any_sequence(self: Stored, checkpoints: Sequence[CostCheckpoint]) -> None:
    await _stored_commit(self, [msgspec.structs.replace(each, ckpt_seq=self.ckpt_seq + 1) for each in checkpoints])


def _forget_what_was_told(_self: Attribution, _rows: object) -> None:
    pass


def _trust_what_is_found(self: Attribution, rows: Iterable[tuple[Key, Sums]]) -> None:
    self._rollup.told(rows)


async def _believe_unknown_is_done(self: Storing, checkpoints: Sequence[CostCheckpoint]) -> None:
    try:
        await _commit(self, checkpoints)
    except CommitUnknown:
        return


async def _read_few_samples(self: CostActor, parts: Sequence[_Owned]) -> None:
    topic = self._kafka.topic_gpu_telemetry
    for part in parts:
        bounds = await self._reader.bounds_of(topic, list(part.samples))
        places = {each: (at, min(bounds[each][1], at + 3)) for each, at in part.samples.items()}
        async for partition, record in self._reader.read_together(topic, places):
            with suppress(SetAside):
                part.fold.apply_sample(record.value, record.key, record.timestamp * 1_000)
            part.samples[partition] = record.offset + 1


def _close_without_a_word(self: Attribution, append_us: int) -> bool:
    _reach(self, append_us)
    return False


def _patch(owner: Any, name: str, replacement: Any) -> Callable[[], Any]:
    return lambda: mock.patch.object(owner, name, replacement)


# What is taken away, and a seed that notices.
ABLATIONS: Final[dict[str, tuple[tuple[Callable[[], Any], ...], int]]] = {
    "a checkpoint of an epoch that is over is taken": ((_patch(Stored, "commit", _commit_at_any_epoch),), 2),
    "an unknown commit is taken as done, and the sequence is not checked": (
        (_patch(Storing, "commit", _believe_unknown_is_done), _patch(Stored, "commit", _commit_at_any_sequence)),
        1,
    ),
    "what an earlier owner told is not held against what is found": (
        (_patch(Attribution, "told", _forget_what_was_told),),
        0,
    ),
    "what an earlier owner may have told is not taken back": (
        (_patch(Attribution, "told", _trust_what_is_found),),
        290,
    ),
    "a new owner reads nothing again": (
        (_patch(Attribution, "needed_from_us", property(lambda self: self.log_us)),),
        1,
    ),
    "samples are not read as far as requests": ((_patch(CostActor, "_read_samples", _read_few_samples),), 4),
    "what closes an hour is read past": ((_patch(Attribution, "reach", _close_without_a_word),), 24),
}


def test_every_seed_ends_as_if_nothing_had_happened_and_every_fault_strikes() -> None:
    fired: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    for seed in SEEDS:
        outcome = simulate_costs(seed)
        assert not outcome.violations, outcome.told()
        reached += outcome.reached
        for (kind, site), count in outcome.fired.items():
            fired.update({site: count, kind: count})
    assert fired.keys() >= {*SITES, *COMMIT_FAULTS, "kill", "pause", "away"}
    assert len(reached) == 5, f"what never comes about proves nothing: {reached}"


def test_a_seed_that_fails_says_how_it_is_seen_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lives, "unlike", lambda *_: ["the canary is dead"])
    assert main(["--costs", "--seed", "5"]) == 1
    assert "the canary is dead" in (said := capsys.readouterr().out)
    assert "again: python -m tests.simulation.run --costs --seed 5" in said


def test_a_seed_takes_the_same_steps_again() -> None:
    assert simulate_costs(3) == simulate_costs(3)


@pytest.mark.parametrize("name", ABLATIONS)
def test_a_safeguard_taken_away_is_noticed(name: str) -> None:
    patches, seed = ABLATIONS[name]
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch())
        assert simulate_costs(seed).violations, f"seed {seed} does not notice any more that {name}: find another"
