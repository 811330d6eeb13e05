"""Who has which plan, as the newest checkpoints of all partitions say."""

from typing import Final

from msgspec import Struct, field

from actors.checkpoints import Checkpoints, StoredCheckpoint
from engine.snapshot import plan_of

NAMES_KEPT: Final = 10  # of each plan: enough to say whom it is about


class Subscribers(Struct):
    """The accounts on one plan: how many, and the first few by partition and name."""

    accounts: int = 0
    names: list[str] = field(default_factory=list)


async def by_plan(checkpoints: Checkpoints) -> dict[str, Subscribers]:
    """A plan that nobody has is not in it. Reads every account once, a piece at a time.

    Raises StoreUnavailable, StoreRefused and UnknownSnapshot."""
    found: dict[str, Subscribers] = {}

    async def count(checkpoint: StoredCheckpoint) -> None:
        async for rows in checkpoint.accounts():
            for row in rows:
                plan = found.setdefault(plan_of(row.blob), Subscribers())
                plan.accounts += 1
                if len(plan.names) < NAMES_KEPT:
                    plan.names.append(row.account)

    for number in await checkpoints.partitions():
        await checkpoints.read(number, count)
    return found
