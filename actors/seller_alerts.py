"""Alerts for the seller into the outbox of all alerts: what is told of margins and budgets, and of no account's log."""

from pathlib import Path
from typing import Any, Final

from actors.ports import AlertRow, Fenced
from actors.queries import read_queries

ALERTS_PARTITION: Final = -1  # of the outbox: these alerts are of no log
_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "seller_alerts.sql").read_text(encoding="utf-8"))


async def check_owner(connection: Any, epoch: int) -> None:
    """Raises Fenced unless the first partition of the margin is at this epoch; it stays so to the end of the transaction."""
    if await connection.fetchval(_QUERIES["owns"], epoch) is None:
        raise Fenced(f"alerts for the seller: no longer at epoch {epoch}")


async def write_alert(connection: Any, alert_id: str, body: bytes) -> AlertRow:
    """The alert, as the outbox has it once the transaction is done."""
    number = await connection.fetchval(_QUERIES["write_alert"], alert_id, body)
    return AlertRow(alert_id, "", number, body)
