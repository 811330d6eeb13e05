"""A shadow actor: rates live usage a second time under drafts of the catalogue, behind the shards. A plain class.

For each shadow and partition it keeps the two folds of a dry run (`actors/dryrun.py`), begins them with a checkpoint that it
seals, and goes on with the log as far as the owner's newest checkpoint. What it finds is a function of that first checkpoint,
the draft and the log; so a new owner takes the sealed checkpoint, folds the same records again, and tells nothing until it is
as far as the one before it was. Nobody waits for it, and nothing that rates, checks or alerts reads what it writes. It owns
without a lease, and goes on by turns (actors/turns.py)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from msgspec import Struct

from actors.checkpoints import StoredCheckpoint
from actors.dryrun import Comparison, Customer, Draft, Shadow, TooLate, Turn
from actors.ports import (
    Clock,
    CommitUnknown,
    Fenced,
    Head,
    LogDamaged,
    LogUnavailable,
    StoreRefused,
    StoreUnavailable,
)
from actors.rebuild import Fold, LogTooShort, Reader, Stored
from actors.sealed_base import BadBase, base_path, read_base, seal_base
from actors.shadow_store import Active, ShadowClaim
from actors.takeover import CatalogueLost
from actors.turns import Turns
from config.settings import KafkaSettings
from engine.catalog import read_document

_log = logging.getLogger(__name__)

TURN_RECORDS: Final = 50_000  # of a partition; then the others have their turn, and what was found is told
TRIED_AGAIN_S: Final = 30.0  # a partition that does not get on
Result = TypeVar("Result")
Place = tuple[int, int, int]  # draft, life, partition


class ShadowStore(Protocol):
    """Where shadows are kept: `Shadows`."""

    async def active(self) -> list[Active]: ...

    async def claim(self, shadow: Active, partition: int, owner: str) -> ShadowClaim | None: ...

    async def put_base(self, claim: ShadowClaim, path: Path, offset: int, from_us: int, log_time_us: int) -> None: ...

    async def get_base(self, claim: ShadowClaim, path: Path) -> None: ...

    async def advance(
        self,
        claim: ShadowClaim,
        next_offset: int,
        log_time_us: int,
        turns: Sequence[Turn],
        customers: Sequence[Customer],
    ) -> None: ...

    async def tell_trouble(self, claim: ShadowClaim, trouble: str) -> None: ...


class LiveCheckpoints(Protocol):
    """What the owners of the log have written: `Checkpoints`."""

    async def partitions(self) -> list[int]: ...

    async def catalogue(self, version: int) -> bytes | None: ...

    async def read(self, partition: int, work: Callable[[StoredCheckpoint], Awaitable[Result]]) -> Result: ...


class ShadowView(Struct, frozen=True):
    """What an operator sees of a partition of a shadow."""

    draft: int
    partition: int
    epoch: int
    next_offset: int


class _Followed:
    """A partition of a shadow, and where it stands."""

    def __init__(self, claim: ShadowClaim, comparison: Comparison, told_offset: int) -> None:
        self.claim = claim
        self.comparison = comparison
        self.told_offset = told_offset  # that was told before, by whomever


class ShadowActor(Turns):
    """See the module's docstring."""

    def __init__(
        self,
        owner: str,
        partitions: Sequence[int],
        *,
        clock: Clock,
        reader: Reader,
        checkpoints: LiveCheckpoints,
        store: ShadowStore,
        kafka: KafkaSettings,
        control_key: bytes,
        interval_s: float,
        folder: Path,
    ) -> None:
        """`owner` names this life of the actor. `folder` is this life's own, for sealed checkpoints on their way."""
        super().__init__(clock, interval_s)
        self._owner = owner
        self._partitions = frozenset(partitions)
        self._reader = reader
        self._checkpoints = checkpoints
        self._store = store
        self._kafka = kafka
        self._control_key = control_key
        self._folder = folder
        self._followed: dict[Place, _Followed] = {}
        self._claims: dict[Place, ShadowClaim] = {}
        self._again_s: dict[Place, float] = {}  # not to be tried before

    def views(self) -> list[ShadowView]:
        """Every partition that it follows."""
        return [
            ShadowView(each.claim.draft, each.claim.partition, each.claim.epoch, each.comparison.next_offset)
            for each in self._followed.values()
        ]

    async def turn(self) -> bool:
        """Go on with every partition."""
        try:
            active = await self._store.active()
            known = self._partitions.intersection(await self._checkpoints.partitions()) if active else frozenset()
        except (StoreUnavailable, StoreRefused) as error:
            _log.warning("shadows wait: %s", error)
            return False
        wanted = {(each.draft, each.life, number): each for each in active for number in sorted(known)}
        self._let_go(set(self._followed) | set(self._claims), keep=set(wanted))
        more = False
        for place, shadow in wanted.items():
            if self._stopping.is_set() or self.fenced:
                return False
            if self._clock.boot_s() >= self._again_s.get(place, 0.0):
                more = await self._go_on(place, shadow) or more
        return more

    def _let_go(self, places: set[Place], keep: set[Place] = frozenset()) -> None:  # type: ignore[assignment]
        for place in places - keep:
            self._followed.pop(place, None)
            self._claims.pop(place, None)
            self._again_s.pop(place, None)

    async def _go_on(self, place: Place, shadow: Active) -> bool:
        try:
            followed = self._followed.get(place)
            if followed is None:
                followed = await self._take(place, shadow)
                if followed is None:
                    return False
                self._followed[place] = followed
            return await self._follow(followed)
        except Fenced as error:
            self._let_go({place})
            if any((each.draft, each.life) == place[:2] for each in await self._still_active()):
                _log.warning("%s", error)
                self.fenced = True
        except CommitUnknown as error:
            _log.warning(
                "shadow of draft %d is claimed again, as nobody knows whether it was written: %s", place[0], error
            )
            self._let_go({place})
        except (StoreUnavailable, StoreRefused, LogUnavailable) as error:
            _log.warning("shadow of draft %d, partition %d waits: %s", place[0], place[2], error)
        except (BadBase, CatalogueLost, LogDamaged, LogTooShort, TooLate) as error:
            await self._tell_trouble(place, str(error))
        except Exception as error:  # of the engine, under a draft that nobody has approved: others are to go on
            _log.exception("shadow of draft %d, partition %d broke", place[0], place[2])
            await self._tell_trouble(place, f"{type(error).__name__}: {error}")
        return False

    async def _still_active(self) -> list[Active]:
        try:
            return await self._store.active()
        except (StoreUnavailable, StoreRefused):
            return []

    async def _tell_trouble(self, place: Place, trouble: str) -> None:
        _log.error("shadow of draft %d, partition %d: %s", place[0], place[2], trouble)
        self._again_s[place] = self._clock.boot_s() + TRIED_AGAIN_S
        claim = self._claims.get(place)
        self._followed.pop(place, None)
        if claim is not None:
            try:
                await self._store.tell_trouble(claim, trouble)
            except (StoreUnavailable, StoreRefused) as error:
                _log.warning("and it could not be told: %s", error)

    # ------------------------------------------------------------------------------------------------------- taking over

    async def _take(self, place: Place, shadow: Active) -> _Followed | None:
        claim = await self._store.claim(shadow, place[2], self._owner)
        if claim is None:
            return None
        self._claims[place] = claim
        folder = self._folder / f"draft-{claim.draft}"
        folder.mkdir(parents=True, exist_ok=True)
        path = base_path(folder, claim.partition)
        try:
            if claim.base_offset is None:
                await self._checkpoints.read(claim.partition, lambda checkpoint: self._seal(checkpoint, folder))
            else:
                await self._store.get_base(claim, path)
            comparison = await self._comparison(claim, shadow, path)
            if claim.base_offset is None:
                assert comparison.from_us is not None, "it begins with a checkpoint"
                begun = comparison.next_offset, comparison.from_us, comparison.log_time_us
                await self._store.put_base(claim, path, *begun)
        finally:
            path.unlink(missing_ok=True)
        await self._store.tell_trouble(claim, "")
        told_offset = comparison.next_offset if claim.next_offset is None else claim.next_offset
        _log.info(
            "partition %d of the shadow of draft %d is ours at epoch %d", claim.partition, claim.draft, claim.epoch
        )
        return _Followed(claim, comparison, told_offset)

    async def _seal(self, checkpoint: StoredCheckpoint, folder: Path) -> None:
        await seal_base(
            checkpoint,
            folder,
            topic=self._kafka.topic_usage,
            partitions=self._kafka.partitions,
            control_key=self._control_key,
        )

    async def _comparison(self, claim: ShadowClaim, shadow: Active, path: Path) -> Comparison:
        base = await asyncio.to_thread(read_base, path, self._control_key)
        sealed = base.head
        head = Head(claim.partition, sealed.epoch, sealed.ckpt_seq, sealed.next_offset, sealed.last, sealed.blob)
        fold = Fold(
            self._reader,
            Stored(head, [], [], [], base.engine_errors, {}),
            base,
            topic=self._kafka.topic_usage,
            partitions=self._kafka.partitions,
            control_key=self._control_key,
            load=self._checkpoints.catalogue,
        )
        under_draft = Shadow(
            Draft(read_document(shadow.body), claim.from_us),
            fold,
            base,
            topic=self._kafka.topic_usage,
            partitions=self._kafka.partitions,
            control_key=self._control_key,
        )
        await fold.check_log(further=True)
        return Comparison(fold, under_draft, None)

    # -------------------------------------------------------------------------------------------------------- following

    async def _follow(self, followed: _Followed) -> bool:
        comparison, claim = followed.comparison, followed.claim
        end, errors = await self._checkpoints.read(claim.partition, _newest)
        upto = min(end, comparison.next_offset + TURN_RECORDS)
        if upto > comparison.next_offset:
            await comparison.follow(upto, errors)
        if comparison.next_offset > followed.told_offset:
            await self._store.advance(
                claim, comparison.next_offset, comparison.log_time_us, comparison.turns(), comparison.untold()
            )
            comparison.told()
            followed.told_offset = comparison.next_offset
        return upto < end


async def _newest(checkpoint: StoredCheckpoint) -> tuple[int, frozenset[int]]:
    """Up to where the partition's owner has come, and the records that broke its engine."""
    return checkpoint.head.next_offset, frozenset(await checkpoint.engine_errors())
