"""A shadow that follows the log finds what a dry run over the same records finds, to the pico, whatever happens to it."""

import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from actors import dryrun, rebuild
from actors.checkpoints import StoredCheckpoint
from actors.dryrun import Customer, Draft, DryRun, Takings, Turn
from actors.ports import CommitUnknown, Fenced, LogUnavailable, StoreUnavailable
from actors.sealed_base import Base
from actors.shadow import TRIED_AGAIN_S, ShadowActor
from actors.shadow_store import Active, ShadowClaim
from config.settings import KafkaSettings
from engine.catalog import SKEW_US, CatalogueDocument, document_json
from tests.actors.proof_rig import ProofRig
from tests.actors.test_dryrun import DRAFT, compared, sealed
from tests.engine.bench import DAY, HOUR, KEY, TOPIC, Bench, RandomLog, document, per_unit, versions

Result = TypeVar("Result")


class Time:
    """Stands still unless it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def wall_us(self) -> int:
        return int(self.now_s * 1_000_000)

    def boot_s(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class Live:
    """The newest checkpoint of the one partition."""

    def __init__(self, rig: ProofRig) -> None:
        self.rig = rig
        self.away = False
        self.claimed = True

    async def partitions(self) -> list[int]:
        if self.away:
            raise StoreUnavailable("away")
        return [self.rig.bench.number] if self.claimed else []

    async def catalogue(self, version: int) -> bytes | None:
        return self.rig.catalogues.get(version)

    async def read(self, partition: int, work: Callable[[StoredCheckpoint], Awaitable[Result]]) -> Result:
        return await work(self.rig.stored())


class Kept:
    """Shadows as Postgres keeps them, of one partition."""

    def __init__(self, body: CatalogueDocument) -> None:
        self.shadows = [Active(7, 1, document_json(body))]
        self.claim_now: ShadowClaim | None = None
        self.base = b""
        self.takings: dict[str, tuple[str, Takings]] = {}
        self.turns: Sequence[Turn] = ()
        self.trouble = ""
        self.breaks: list[Exception] = []
        self.told: list[int] = []  # offsets

    async def active(self) -> list[Active]:
        return self.shadows

    async def claim(self, shadow: Active, partition: int, owner: str) -> ShadowClaim | None:
        last = self.claim_now
        if last is None or last.life != shadow.life:
            self.takings.clear()
            last = ShadowClaim(shadow.draft, shadow.life, partition, 0, None, None, None)
        self.claim_now = msgspec.structs.replace(last, epoch=last.epoch + 1)
        return self.claim_now

    def _ours(self, claim: ShadowClaim) -> ShadowClaim:
        if self.breaks:
            raise self.breaks.pop()
        now = self.claim_now
        if now is None or (now.epoch, now.life) != (claim.epoch, claim.life):
            raise Fenced("another one follows")
        return now

    async def put_base(self, claim: ShadowClaim, path: Path, offset: int, from_us: int, log_time_us: int) -> None:
        now = self._ours(claim)
        self.base = path.read_bytes()  # noqa: ASYNC240
        self.claim_now = msgspec.structs.replace(now, base_offset=offset, from_us=from_us, next_offset=offset)

    async def get_base(self, claim: ShadowClaim, path: Path) -> None:
        path.write_bytes(self.base)  # noqa: ASYNC240

    async def advance(
        self,
        claim: ShadowClaim,
        next_offset: int,
        log_time_us: int,
        turns: Sequence[Turn],
        customers: Sequence[Customer],
    ) -> None:
        now = self._ours(claim)
        assert now.next_offset is not None and next_offset >= now.next_offset, "what was told is never taken back"
        self.told.append(next_offset)
        self.claim_now = msgspec.structs.replace(now, next_offset=next_offset)
        self.turns, self.trouble = turns, ""
        for each in customers:
            self.takings[each.account] = each.plan, msgspec.structs.replace(each.takings)

    async def tell_trouble(self, claim: ShadowClaim, trouble: str) -> None:
        self.trouble = trouble


class Rig:
    """A log that grows, a store, and actors that come and go."""

    def __init__(self, proof: ProofRig, folder: Path, body: CatalogueDocument = DRAFT) -> None:
        self.proof = proof
        self.live = Live(proof)
        self.kept = Kept(body)
        self.clock = Time()
        self._folder = folder
        self._lives = 0
        self.actor = self.made()

    def made(self) -> ShadowActor:
        """A new life of the actor."""
        self._lives += 1
        return ShadowActor(
            f"shadow-0.{self._lives}",
            range(self.proof.bench.partitions),
            clock=self.clock,
            reader=self.proof.reader,
            checkpoints=self.live,
            store=self.kept,
            kafka=KafkaSettings(partitions=self.proof.bench.partitions, topic_usage=TOPIC),
            control_key=KEY,
            interval_s=1.0,
            folder=self._folder / str(self._lives),
        )

    async def turn(self) -> None:
        """One look at what has come, to its end."""
        while await self.actor.turn():
            pass

    def same_as(self, found: DryRun) -> None:
        """What is kept is what the dry run says."""
        assert self.kept.takings == {one.account: (one.plan, one.takings) for one in found.customers}
        assert list(self.kept.turns) == found.turns
        assert self.kept.claim_now is not None and self.kept.claim_now.next_offset == found.end


@pytest.mark.parametrize("seed", range(10))
async def test_a_shadow_finds_what_a_dry_run_over_the_same_records_finds(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restarts, a store that is away, answers that never came, and turns of any length change nothing."""
    for module in (rebuild, dryrun):
        monkeypatch.setattr(module, "SETTLE_EVERY", 17)
    source = random.Random(seed)
    monkeypatch.setattr("actors.shadow.TURN_RECORDS", source.choice([7, 50_000]))
    bench = Bench(*versions(), partitions=2)
    log = RandomLog(bench, source, stride_us=source.choice([HOUR // 60, HOUR]))
    for _ in range(60):
        log.step()
    proof = ProofRig(bench)
    proof.checkpoint()
    base: Base = await sealed(proof, tmp_path / "base")
    rig = Rig(proof, tmp_path)
    await rig.turn()
    for _ in range(12):
        for _ in range(source.randrange(30)):
            log.step()
        if source.random() < 0.8:
            proof.checkpoint()
        chance = source.random()
        if chance < 0.25:
            rig.actor = rig.made()  # the one before died
        elif chance < 0.4:
            rig.kept.breaks.append(source.choice([CommitUnknown("nobody knows"), StoreUnavailable("away")]))
        await rig.turn()
    proof.checkpoint()
    await rig.turn()
    await rig.turn()  # what could not be told is told
    found = await compared(proof, Draft(DRAFT), base)
    rig.same_as(found)
    assert rig.kept.told == sorted(rig.kept.told)
    if seed == 0:
        assert any(one.takings.difference for one in found.customers), "the draft is not what is published"
        assert rig.kept.claim_now is not None and rig.kept.claim_now.from_us == bench_from(base)


def bench_from(base: Base) -> int:
    """Behind all that may have been rated by then."""
    from engine.snapshot import decode_partition

    assert base.head.blob is not None
    return decode_partition(base.head.blob).log_time_us + SKEW_US + 1


def _proof() -> ProofRig:
    bench = Bench()
    bench.open()
    bench.use(units=7, model="x")
    proof = ProofRig(bench)
    proof.checkpoint()
    return proof


CHEAPER = document(x=per_unit("0.25", model="x"))


async def test_usage_is_charged_beside_what_it_is_charged_once_the_draft_is_in_force(tmp_path: Path) -> None:
    """Golden: 4 units at $1 and at $0.25 under the draft; the 7 from before it began count on neither side."""
    rig = Rig(_proof(), tmp_path, CHEAPER)
    await rig.turn()
    assert (rig.kept.takings, rig.kept.trouble) == ({}, "")
    bench = rig.proof.bench
    bench.now += DAY
    bench.use(units=4, model="x")
    await rig.turn()
    assert rig.kept.takings == {}, "only what its owner has written is followed"
    rig.proof.checkpoint()
    balance = bench.balance()
    await rig.turn()
    assert rig.kept.takings == {"acme": ("plan", Takings(4 * 10**12, 10**12, 1, 1))}
    assert bench.balance() == balance
    (view,) = rig.actor.views()
    assert (view.draft, view.partition, view.next_offset) == (7, 0, len(bench.log))


async def test_two_followers_do_not_both_write(tmp_path: Path) -> None:
    rig = Rig(_proof(), tmp_path, CHEAPER)
    await rig.turn()
    first, rig.actor = rig.actor, rig.made()
    await rig.turn()
    rig.proof.bench.now += DAY
    rig.proof.bench.use(units=4, model="x")
    rig.proof.checkpoint()
    await first.turn()
    assert (first.fenced, first.views(), rig.kept.takings) == (True, [], {})
    await first.run()  # it ends by itself
    await rig.turn()
    assert not rig.actor.fenced and rig.kept.takings["acme"][1].after == 10**12


async def test_one_that_is_stopped_is_let_go_and_one_that_begins_anew_begins_at_the_newest_checkpoint(
    tmp_path: Path,
) -> None:
    rig = Rig(_proof(), tmp_path, CHEAPER)
    await rig.turn()
    (shadow,) = rig.kept.shadows
    rig.kept.shadows = []
    await rig.turn()
    assert rig.actor.views() == []
    rig.proof.bench.now += DAY
    rig.proof.bench.use(units=4, model="x")
    rig.proof.checkpoint()
    rig.kept.shadows = [msgspec.structs.replace(shadow, life=2)]
    await rig.turn()
    assert (rig.kept.takings, rig.actor.fenced) == ({}, False)
    assert rig.kept.claim_now is not None and rig.kept.claim_now.base_offset == rig.proof.next_offset


async def test_a_stop_in_the_middle_of_a_turn_is_no_other_follower(tmp_path: Path) -> None:
    rig = Rig(_proof(), tmp_path, CHEAPER)
    await rig.turn()
    rig.proof.bench.use(units=4, model="x")
    rig.proof.checkpoint()
    (shadow,) = rig.kept.shadows
    asked = [[shadow], []]

    async def active() -> list[Active]:
        return asked.pop(0) if asked else []

    rig.kept.active = active  # type: ignore[method-assign]
    rig.kept.claim_now = None
    await rig.turn()
    assert (rig.actor.fenced, rig.actor.views()) == (False, [])


async def test_what_stands_in_the_way_is_told_and_tried_again(tmp_path: Path) -> None:
    rig = Rig(_proof(), tmp_path, CHEAPER)
    await rig.turn()
    rig.actor = rig.made()
    whole, rig.kept.base = rig.kept.base, rig.kept.base[:-1]
    await rig.turn()
    assert "its SHA-256 does not hold" in rig.kept.trouble and rig.actor.views() == []
    rig.kept.base = whole
    await rig.turn()
    assert rig.actor.views() == [], "not at once"
    rig.clock.now_s += TRIED_AGAIN_S
    rig.proof.bench.use(units=4, model="x")
    rig.proof.checkpoint()
    await rig.turn()
    assert rig.kept.trouble == "" and len(rig.actor.views()) == 1
    # Records that are gone from the log, for whoever begins anew.
    rig.proof.reader.first = rig.proof.next_offset
    rig.actor = rig.made()
    await rig.turn()
    assert "are no longer in the log" in rig.kept.trouble


async def test_a_draft_that_breaks_the_engine_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(_proof(), tmp_path, CHEAPER)
    await rig.turn()

    def broken(self: object, record: object, outcome: str) -> str:
        raise ZeroDivisionError("a fault of the engine")

    monkeypatch.setattr(dryrun.Shadow, "apply", broken)
    rig.proof.bench.use(units=4, model="x")
    rig.proof.checkpoint()
    await rig.turn()
    assert rig.kept.trouble == "ZeroDivisionError: a fault of the engine"
    assert not rig.actor.fenced


async def test_it_waits_for_servers_and_for_a_first_checkpoint(tmp_path: Path) -> None:
    rig = Rig(_proof(), tmp_path, CHEAPER)
    rig.live.away = True
    await rig.turn()
    rig.live.away, rig.live.claimed = False, False
    await rig.turn()
    assert rig.kept.claim_now is None
    rig.live.claimed = True
    blob, rig.proof.store.blob = rig.proof.store.blob, None
    await rig.turn()
    assert "never checkpointed" in rig.kept.trouble
    rig.proof.store.blob = blob
    rig.clock.now_s += TRIED_AGAIN_S
    await rig.turn()
    assert len(rig.actor.views()) == 1
    rig.kept.breaks.append(LogUnavailable("away"))
    rig.proof.bench.use(units=4, model="x")
    rig.proof.checkpoint()
    await rig.turn()
    assert len(rig.actor.views()) == 1, "it stands where it stood"
