"""Training runs in Postgres: declared by people, moved on by their logs, and their budgets judged by whoever owns the first
partition of the margin."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec
from msgspec import Struct

from actors.ports import AlertRow
from actors.postgres import OnSession, Session, pico_of, session_settings, storable, units_of
from actors.queries import read_queries
from actors.seller_alerts import check_owner, write_alert
from engine.alerts import Standing
from engine.cost.attribution import rates_of
from engine.cost.gpu_rates import GpuRates
from engine.cost.training import Progress, Projection, ReadLog, TrainingRun, Unit, judge, project, read_log

RUNS_MAX: Final = 1_000
_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "training.sql").read_text(encoding="utf-8"))
_progress: Final = msgspec.json.Decoder(Progress)


class TooManyRuns(Exception):
    """There are as many as there may be."""


class Blobs(Protocol):
    """What of `CostStore` is asked."""

    async def blobs(self) -> dict[int, bytes]: ...


class KeptRun(Struct, frozen=True):
    """A run, how far it has come, how its budget stands, and the number of its last change."""

    run: TrainingRun
    progress: Progress
    standing: Standing
    revision: int


async def newest_rates(store: Blobs) -> GpuRates | None:
    """The rates with the highest version that any cost actor has in its checkpoint. Raises StoreUnavailable, Malformed."""
    found = [rates for blob in (await store.blobs()).values() if (rates := rates_of(blob)) is not None]
    return max(found, key=lambda rates: rates.version, default=None)


class PostgresTraining(OnSession):
    """One session. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str, lease_s: float, statement_timeout_s: float, costs: Blobs) -> None:
        """`costs` knows the rates."""
        settings = session_settings(schema, lease_s, statement_timeout_s, "training")
        self._session = Session(dsn, settings, statement_timeout_s, statement_timeout_s)
        self._costs = costs

    async def put(self, run: TrainingRun) -> None:
        """Declare or change it; it goes on where its log has come to. Raises TooManyRuns."""
        values = (
            *(run.run, run.gpu, run.gpus, run.started_us, run.unit.value),
            *(None if run.budget is None else units_of(run.budget), run.level, run.precision, run.peak, RUNS_MAX),
        )

        async def work(connection: Any) -> bool:
            return await connection.fetchval(_QUERIES["set_run"], *values) is not None

        if not await self._session.repeatable(work):
            raise TooManyRuns

    async def remove(self, run: str) -> bool:
        """Whether there was one."""

        async def work(connection: Any) -> bool:
            return await connection.fetchval(_QUERIES["remove_run"], storable(run)) is not None

        return await self._session.repeatable(work)

    async def all(self) -> list[KeptRun]:
        """In the order of their names."""

        async def work(connection: Any) -> list[KeptRun]:
            return [_kept(row) for row in await connection.fetch(_QUERIES["runs"])]

        return await self._session.repeatable(work)

    async def move_on(self, run: str, lines: Sequence[str]) -> tuple[KeptRun, ReadLog] | None:
        """What the lines of its log say of it, kept; None: there is no such run. Lines that come twice change nothing."""

        async def work(connection: Any) -> tuple[KeptRun, ReadLog] | None:
            row = await connection.fetchrow(_QUERIES["one_run"], storable(run))
            if row is None:
                return None
            kept = _kept(row)
            read = read_log(lines, kept.run, kept.progress)
            text = msgspec.json.encode(read.progress).decode()
            revision = await connection.fetchval(_QUERIES["move_on"], kept.run.run, text)
            return KeptRun(kept.run, read.progress, kept.standing, revision), read

        return await self._session.repeatable(work)

    async def projected(self, kept: Sequence[KeptRun]) -> tuple[list[Projection], str | None]:
        """What each comes to under the newest rates, and their currency; None: no rates are known."""
        rates = await newest_rates(self._costs)
        return [project(each.run, each.progress, rates) for each in kept], None if rates is None else rates.currency

    async def judge(self, epoch: int) -> list[AlertRow]:
        """Looks at all budgets; what is to be told, in the outbox already. Raises Fenced, CommitUnknown."""
        kept = [each for each in await self.all() if each.run.budget is not None]
        if not kept:
            return []
        found, currency = await self.projected(kept)
        told = []
        for each, projection in zip(kept, found, strict=True):
            standing, alert = judge(each.run, each.progress, projection, currency or "", each.standing)
            if alert is None:
                continue
            place = (each.run.run, each.revision, standing.ordinal, standing.active)

            async def work(
                connection: Any,
                place: tuple[Any, ...] = place,
                alert_id: str = alert.alert_id,
                body: bytes = alert.body,
            ) -> AlertRow | None:
                await check_owner(connection, epoch)
                if await connection.fetchval(_QUERIES["write_standing"], *place) is None:
                    return None
                return await write_alert(connection, alert_id, body)

            row = await self._session.transaction(work)
            if row is not None:
                told.append(row)
        return told


def _kept(row: Any) -> KeptRun:
    run = TrainingRun(
        *(row["run"], row["gpu"], row["gpus"], row["started_us"], Unit(row["unit"])),
        budget=None if row["budget"] is None else pico_of(row["budget"]),
        level=row["level"],
        precision=row["precision"],
        peak=None if row["peak"] is None else int(row["peak"]),
    )
    return KeptRun(run, _progress.decode(row["progress"]), Standing(row["ordinal"], row["active"]), row["revision"])
