"""What gateways are told beside a check: that such requests earn less than a margin floor of the seller's.

It is known by heart, from the floors that stand crossed by the last hour that has settled, so no check waits for it, and none
is decided by it."""

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from typing import Final, Protocol

from actors.margin_floors import KeptFloor
from actors.ports import Clock, StoreRefused, StoreUnavailable
from engine.cost.floors import Floor, Of

REFRESH_S: Final = 5.0

_log = logging.getLogger(__name__)


class Floors(Protocol):
    """What of `PostgresFloors` is needed."""

    async def all(self) -> list[KeptFloor]: ...


class Advisor:
    """The floors that stand crossed, as of a few seconds ago. Without the database, as they stood last."""

    def __init__(self, floors: Floors, clock: Clock) -> None:
        self._floors = floors
        self._clock = clock
        self._crossed: dict[tuple[Of, str], Floor] = {}
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look, in the background."""
        await self.refresh()
        self._refreshing = asyncio.create_task(self._refresh_for_ever())

    async def stop(self) -> None:
        """Look no more."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing

    def of(self, account: str, models: Collection[str]) -> Floor | None:
        """The floor that a request of the account, on any of these models, is below: of several the account's, else that of
        the first model by name."""
        if not self._crossed:
            return None
        found = self._crossed.get((Of.ACCOUNT, account))
        if found is not None:
            return found
        return next((floor for model in sorted(models) if (floor := self._crossed.get((Of.MODEL, model)))), None)

    async def refresh(self) -> None:
        """Look once; what cannot be seen stays as it was."""
        try:
            kept = await self._floors.all()
        except (StoreUnavailable, StoreRefused) as error:
            _log.warning("margin floors: %s", error)
            return
        crossed: dict[tuple[Of, str], Floor] = {}
        for floor in [each.floor for each in kept if each.floor.standing.active]:
            known = crossed.get((floor.of, floor.subject))
            if known is None or floor.permille > known.permille:
                crossed[floor.of, floor.subject] = floor
        self._crossed = crossed

    async def _refresh_for_ever(self) -> None:
        while True:
            await self._clock.sleep(REFRESH_S)
            await self.refresh()
