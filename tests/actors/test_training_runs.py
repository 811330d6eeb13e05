"""Training runs in a real Postgres: what is kept of them, under which rates, and how many there may be."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from msgspec.structs import replace

from actors.migrations import migrate
from actors.training_runs import PostgresTraining, TooManyRuns, newest_rates
from engine.cost.attribution import Attribution, Horizons
from engine.cost.gpu_rates import HOUR_US, GpuRate, RateDocument
from engine.cost.training import TrainingRun, Unit
from engine.events import Malformed, seal
from engine.money import PICO
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn

SCHEMA = "training_runs"
KEY = b"k" * 32
RUN = TrainingRun("pretrain", "h100-sxm", 8, 490_000 * HOUR_US, Unit.MINUTES, 5 * PICO, "critical", "fp8", 10**15)


class Checkpoints:
    """Those of cost actors."""

    def __init__(self, *rates: tuple[int, str]) -> None:
        self.kept = {number: _blob(*each) for number, each in enumerate(rates)}

    async def blobs(self) -> dict[int, bytes]:
        return self.kept


def _blob(version: int, amount: str) -> bytes:
    fold = Attribution(0, KEY, Horizons())
    document = RateDocument(version, "USD", (GpuRate("h100-sxm", 0, amount),))
    fold.apply(seal(KEY, "served", 0, msgspec.json.encode(document)), b"rates", 1)
    return fold.blob()


@pytest.fixture
async def runs(database: str) -> AsyncIterator[PostgresTraining]:
    await migrate(database, SCHEMA, ENGINE_PASSWORD)
    made = PostgresTraining(engine_dsn(database), SCHEMA, 1.2, 5.0, Checkpoints((3, "2"), (4, "6"), (1, "9")))
    await made.start()
    yield made
    for kept in await made.all():
        await made.remove(kept.run.run)
    await made.stop()


async def test_a_run_is_kept_to_the_last_field_and_goes_on_when_it_is_changed(runs: PostgresTraining) -> None:
    await runs.put(RUN)
    moved = await runs.move_on("pretrain", ["[metric][batch=9]: time/total: 60", "time/remaining_estimate: 30"])
    assert moved is not None
    changed = replace(RUN, budget=None, peak=None)
    await runs.put(changed)
    (kept,) = await runs.all()
    assert (kept.run, kept.progress) == (changed, moved[0].progress)
    assert kept.revision > moved[0].revision > 1
    (found,), currency = await runs.projected([kept])
    assert (found.spent, found.projected, currency) == (48 * PICO, 72 * PICO, "USD"), "the highest version counts"


async def test_one_that_was_removed_begins_anew(runs: PostgresTraining) -> None:
    await runs.put(RUN)
    await runs.move_on("pretrain", ["time/total: 60"])
    assert await runs.remove("pretrain")
    assert await runs.move_on("pretrain", ["time/total: 60"]) is None
    assert not await runs.remove("pretrain")
    await runs.put(RUN)
    (kept,) = await runs.all()
    assert kept.progress.elapsed_us is None


async def test_there_may_be_so_many(runs: PostgresTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.training_runs.RUNS_MAX", 1)
    await runs.put(RUN)
    await runs.put(RUN)
    with pytest.raises(TooManyRuns):
        await runs.put(replace(RUN, run="other"))


async def test_rates_are_those_of_checkpoints() -> None:
    assert await newest_rates(Checkpoints()) is None
    broken = Checkpoints((1, "2"))
    broken.kept[1] = b"\xc1"
    with pytest.raises(Malformed):
        await newest_rates(broken)
