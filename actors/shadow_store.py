"""Shadows of catalogue drafts in Postgres: which are to be followed, how far each has come, and what it has found.

What a shadow finds is a function of the checkpoint that it began with, of the draft and of the log. So the first checkpoint
is kept here, sealed, and whoever follows next folds the same records again; an epoch for each partition refuses whoever
followed before."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from actors.drafts import us_of
from actors.dryrun import Customer, Takings, Turn
from actors.ports import CommitUnknown, Fenced, StoreUnavailable
from actors.postgres import OnSession, Session, pico_of, session_settings, storable, units_of
from actors.queries import read_queries

STATEMENT_S: Final = 60.0  # a base is stored in one transaction
PART_BYTES: Final = 1024 * 1024
SHADOWS_MAX: Final = 4  # at once: each holds all accounts twice in memory
TROUBLE_MAX: Final = 500
_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "shadows.sql").read_text(encoding="utf-8"))
_turns: Final = msgspec.json.Decoder(list[Turn])
Result = TypeVar("Result")


class ShadowRuns(Exception):
    """The draft has one already."""


class NoShadow(Exception):
    """The draft has none that runs."""


class TooManyShadows(Exception):
    """As many as may be followed at once are."""


class Active(Struct, frozen=True):
    """One that is to be followed."""

    draft: int
    life: int
    body: bytes  # the draft's JSON


class ShadowClaim(Struct, frozen=True):
    """What a follower of a partition starts from. Offsets and instants are None until its first checkpoint is kept."""

    draft: int
    life: int
    partition: int
    epoch: int
    base_offset: int | None
    from_us: int | None
    next_offset: int | None


class ShadowPartition(Struct, frozen=True):
    """How far a partition has come. None: nobody has begun yet."""

    partition: int
    base_offset: int | None
    from_us: int | None
    next_offset: int | None
    log_time_us: int | None
    turns: list[Turn]
    trouble: str  # why it does not get on; empty: it does


class PlanTakings(Struct, frozen=True):
    """Of all customers on a plan."""

    plan: str
    currency: str
    customers: int
    takings: Takings


class ShadowFound(Struct, frozen=True):
    """A shadow, and what it has found. Instants are microseconds since 1970 UTC."""

    draft: int
    started_by: str
    started_us: int
    stopped_by: str | None
    stopped_us: int | None
    partitions: list[ShadowPartition]
    plans: list[PlanTakings]
    customers: list[Customer]  # the largest differences first


class Shadows(OnSession):
    """One session. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._session = Session(
            dsn, session_settings(schema, STATEMENT_S, STATEMENT_S, "shadows"), STATEMENT_S, STATEMENT_S
        )

    # ------------------------------------------------------------------------------------------------------ for people

    async def begin(self, draft: int, actor: str) -> None:
        """Start one, anew if it was stopped. Raises ShadowRuns, TooManyShadows."""

        async def work(connection: Any) -> None:
            await connection.execute(_QUERIES["one_at_a_time"])
            row = await connection.fetchrow(_QUERIES["lock_shadow"], draft)
            if row is not None and row["runs"]:
                raise ShadowRuns(draft)
            if await connection.fetchval(_QUERIES["running"]) >= SHADOWS_MAX:
                raise TooManyShadows(draft)
            for query in ("remove_takings", "remove_bases", "remove_partitions"):
                await connection.execute(_QUERIES[query], draft)
            await connection.execute(_QUERIES["start_shadow"], draft, actor)

        await self._transaction(work)

    async def end(self, draft: int, actor: str) -> None:
        """Stop it; what it has found is kept. Raises NoShadow."""

        async def work(connection: Any) -> None:
            row = await connection.fetchrow(_QUERIES["lock_shadow"], draft)
            if row is None or not row["runs"]:
                raise NoShadow(draft)
            await connection.execute(_QUERIES["remove_bases"], draft)
            await connection.execute(_QUERIES["stop_shadow"], draft, actor)

        await self._transaction(work)

    async def found(self, draft: int, account: str | None, customers_max: int) -> ShadowFound:
        """What it has found, in one snapshot. Raises NoShadow where the draft never had one."""

        async def work(connection: Any) -> ShadowFound:
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            shadow = await connection.fetchrow(_QUERIES["shadow"], draft)
            if shadow is None:
                raise NoShadow(draft)
            partitions = await connection.fetch(_QUERIES["partitions"], draft)
            plans = await connection.fetch(_QUERIES["plans"], draft)
            customers = await connection.fetch(_QUERIES["customers"], draft, account, customers_max)
            return ShadowFound(
                *(draft, shadow["started_by"], us_of(shadow["started_at"]), shadow["stopped_by"]),
                _us_or_none(shadow["stopped_at"]),
                [_partition(row) for row in partitions],
                [PlanTakings(row["plan"], row["currency"], row["customers"], _takings(row)) for row in plans],
                [Customer(row["account"], row["plan"], row["currency"], _takings(row)) for row in customers],
            )

        return await self._transaction(work)

    # --------------------------------------------------------------------------------------------- for whoever follows

    async def active(self) -> list[Active]:
        """Those that are to be followed."""

        async def work(connection: Any) -> list[Active]:
            return [Active(*row.values()) for row in await connection.fetch(_QUERIES["active"])]

        return await self._transaction(work)

    async def claim(self, shadow: Active, partition: int, owner: str) -> ShadowClaim | None:
        """Follow a partition from here on. None: it was stopped meanwhile."""

        async def work(connection: Any) -> ShadowClaim | None:
            row = await connection.fetchrow(_QUERIES["claim"], shadow.draft, partition, shadow.life, owner)
            if row is None:
                return None
            begun = row["base_offset"], row["from_us"], row["next_offset"]
            return ShadowClaim(shadow.draft, shadow.life, partition, row["epoch"], *begun)

        return await self._transaction(work)

    async def put_base(self, claim: ShadowClaim, path: Path, offset: int, from_us: int, log_time_us: int) -> None:
        """Keep the checkpoint that it begins with, a sealed file. Raises Fenced."""

        async def work(connection: Any) -> None:
            ours = await connection.fetchval(_QUERIES["begin"], *_fence(claim), offset, from_us, log_time_us)
            if ours is None:
                raise _fenced(claim)
            for number, part in enumerate(_parts(path)):
                await connection.execute(_QUERIES["put_part"], claim.draft, claim.partition, number, part)

        await self._session.transaction(work)

    async def get_base(self, claim: ShadowClaim, path: Path) -> None:
        """Write the file that was kept."""

        async def work(connection: Any) -> None:
            with path.open("wb") as file:
                async for row in connection.cursor(_QUERIES["parts"], claim.draft, claim.partition, prefetch=4):
                    file.write(row["body"])

        await self._transaction(work)

    async def advance(
        self,
        claim: ShadowClaim,
        next_offset: int,
        log_time_us: int,
        turns: Sequence[Turn],
        customers: Sequence[Customer],
    ) -> None:
        """Where it stands, and the customers whose takings have changed, in one transaction. Raises Fenced, CommitUnknown."""

        async def work(connection: Any) -> None:
            told = msgspec.json.encode(turns).decode()
            ours = await connection.fetchval(_QUERIES["advance"], *_fence(claim), next_offset, log_time_us, told)
            if ours is None:
                raise _fenced(claim)
            if customers:
                await connection.execute(
                    _QUERIES["put_takings"],
                    *(claim.draft, claim.partition, [storable(each.account) for each in customers]),
                    *([each.plan for each in customers], [each.currency for each in customers]),
                    *([units_of(each.takings.before) for each in customers],),
                    *([units_of(each.takings.after) for each in customers],),
                    *([each.takings.events_before for each in customers],),
                    *([each.takings.events_after for each in customers],),
                )

        await self._session.transaction(work)

    async def tell_trouble(self, claim: ShadowClaim, trouble: str) -> None:
        """Why it does not get on."""
        text = storable(trouble)[:TROUBLE_MAX]
        await self._transaction(lambda connection: connection.execute(_QUERIES["tell_trouble"], *_fence(claim), text))

    async def _transaction(self, work: Callable[[Any], Awaitable[Result]]) -> Result:
        try:
            return await self._session.transaction(work)
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from error


def _fence(claim: ShadowClaim) -> tuple[int, int, int, int]:
    return claim.draft, claim.partition, claim.life, claim.epoch


def _fenced(claim: ShadowClaim) -> Fenced:
    return Fenced(f"shadow of draft {claim.draft}, partition {claim.partition}: no longer at epoch {claim.epoch}")


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            yield part


def _partition(row: Any) -> ShadowPartition:
    place = row["base_offset"], row["from_us"], row["next_offset"], row["log_time_us"]
    return ShadowPartition(row["partition"], *place, _turns.decode(row["turns"]), row["trouble"])


def _takings(row: Any) -> Takings:
    return Takings(pico_of(row["before"]), pico_of(row["after"]), row["events_before"], row["events_after"])


def _us_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else us_of(moment)
