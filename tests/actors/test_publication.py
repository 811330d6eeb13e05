"""A catalogue reaches the store and every partition, behind every event that could be rated already."""

import msgspec
import pytest

from actors.publication import Published, publish
from engine.catalog import (
    SKEW_US,
    BadCatalogue,
    CatalogueDocument,
    MeterDefinition,
    PlanDefinition,
    PriceDefinition,
    compile_catalogue,
    document_json,
)
from engine.partition import Partition
from tests.simulation.hand_clock import HandClock
from tests.simulation.sim_log import SimBroker, SimLog
from tests.simulation.sim_store import SimDatabase, SimStore

KEY = b"k" * 32
MINUTE_US = 60_000_000


def _document(amount: str, plan: str = "starter", currency: str = "USD", meter: str = "tokens") -> CatalogueDocument:
    return CatalogueDocument(
        {
            "tokens": MeterDefinition("llm.request", "sum", "tokens"),
            "calls": MeterDefinition("llm.request", "count"),
        },
        {
            plan: PlanDefinition(
                currency,
                {
                    "use": PriceDefinition(meter, "per_unit", amount=amount),
                    "other": PriceDefinition("calls" if meter == "tokens" else "tokens", "per_unit", amount="0"),
                },
            )
        },
    )


class _Bench:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.broker = SimBroker(self.clock, 2)
        self.log = SimLog(self.broker, self.clock)
        self.store = SimStore(SimDatabase(self.clock))

    async def publish(self, document: CatalogueDocument, effective_us: int | None = None) -> Published:
        await self.log.start()
        await self.store.start()
        return await publish(
            document,
            store=self.store,
            log=self.log,
            clock=self.clock,
            topic="usage",
            control_key=KEY,
            effective_us=effective_us,
        )

    async def fold(self, library: dict[int, CatalogueDocument]) -> list[Partition]:
        compiled = {version: compile_catalogue(version, document) for version, document in library.items()}
        folds = []
        for number in range(2):
            fold = Partition(number, 2, "usage", KEY, compiled)
            first, end = await self.log.bounds(number)
            for offset in range(first, end):
                record = await self.log.read_one(number, offset)
                assert record is not None
                fold.apply(record.offset, record.timestamp, record.key, record.value)
            folds.append(fold)
        return folds


async def test_the_first_version_is_in_force_for_all_time_in_every_partition() -> None:
    bench = _Bench()
    assert await bench.publish(_document("1")) == Published(1, 0)
    assert await bench.store.catalogue(1) == document_json(_document("1"))
    assert [fold.counts for fold in await bench.fold({1: _document("1")})] == [{"catalogue": 1}] * 2


async def test_the_next_version_takes_effect_behind_everything_that_may_be_rated() -> None:
    bench = _Bench()
    await bench.publish(_document("1"))
    published = await bench.publish(_document("2"))
    assert published == Published(2, bench.clock.wall_us() + SKEW_US + MINUTE_US)
    folds = await bench.fold({1: _document("1"), 2: _document("2")})
    assert [fold.counts for fold in folds] == [{"catalogue": 2}] * 2


async def test_an_instant_too_soon_is_refused_and_nothing_is_published() -> None:
    bench = _Bench()
    await bench.publish(_document("1"))
    with pytest.raises(BadCatalogue, match="6 minutes"):
        await bench.publish(_document("2"), bench.clock.wall_us() + SKEW_US)
    assert await bench.store.latest_catalogue_version() == 1


async def test_a_publication_that_broke_off_is_healed_by_stating_its_instant_again() -> None:
    bench = _Bench()
    await bench.publish(_document("1"))
    first = await bench.publish(_document("2"))
    with pytest.raises(BadCatalogue, match="state its instant"):
        await bench.publish(_document("2"))
    assert await bench.publish(_document("2"), first.effective_us) == first
    folds = await bench.fold({1: _document("1"), 2: _document("2")})
    assert [fold.counts["catalogue"] for fold in folds] == [2, 2]
    assert [fold.counts["dead_lettered.bad_control"] for fold in folds] == [1, 1]


@pytest.mark.parametrize(
    ("follower", "complaint"),
    [
        (_document("2", plan="other"), "plan starter is gone"),
        (_document("2", currency="EUR"), "was in USD"),
        (_document("2", meter="calls"), "counted meter tokens before"),
    ],
)
async def test_a_version_under_which_accounts_could_not_go_on_is_refused(
    follower: CatalogueDocument, complaint: str
) -> None:
    bench = _Bench()
    await bench.publish(_document("1"))
    with pytest.raises(BadCatalogue, match=complaint):
        await bench.publish(follower)
    assert await bench.store.latest_catalogue_version() == 1


async def test_what_is_stored_is_what_a_shard_will_load() -> None:
    bench = _Bench()
    await bench.publish(_document("1"))
    body = await bench.store.catalogue(1)
    assert body is not None
    assert msgspec.json.decode(body, type=CatalogueDocument) == _document("1")
