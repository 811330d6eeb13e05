"""Alerts for the seller: numbered one by one, and refused to whoever no longer owns the first partition of the margin."""

import pytest

from actors.margin_store import MarginStore
from actors.migrations import migrate
from actors.ports import AlertRow, Fenced
from actors.postgres import Session, session_settings
from actors.seller_alerts import check_owner, write_alert
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn

SCHEMA = "seller_alerts"


async def test_they_are_written_in_order_by_the_owner_alone(database: str) -> None:
    await migrate(database, SCHEMA, ENGINE_PASSWORD)
    dsn = engine_dsn(database)
    margins = MarginStore(dsn, SCHEMA, 1.2, 5.0)
    session = Session(dsn, session_settings(SCHEMA, 1.2, 5.0, "seller"), 5.0, 5.0)
    await margins.start()
    await session.start()

    async def write(epoch: int, name: str) -> AlertRow:
        async def work(connection: object) -> AlertRow:
            await check_owner(connection, epoch)
            return await write_alert(connection, name, b"{}")

        return await session.transaction(work)

    try:
        epoch = (await margins.claim(0, "a")).epoch
        assert [(await write(epoch, name)).offset for name in ("one", "two")] == [0, 1]
        successor = (await margins.claim(0, "b")).epoch
        with pytest.raises(Fenced):
            await write(epoch, "three")
        assert (await write(successor, "three")) == AlertRow("three", "", 2, b"{}")
    finally:
        await session.stop()
        await margins.stop()
