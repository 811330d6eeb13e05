"""What a provider has billed, in Postgres: imported by people, held against what the cost actors said."""

from collections.abc import Sequence
from decimal import Context, Decimal
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from actors.cost_store import CostStore
from actors.postgres import OnSession, Session, session_settings
from actors.queries import read_queries
from engine.cost.billed import (
    SPAN_US_MAX,
    BilledUsage,
    ListPrice,
    Prices,
    Reconciled,
    RecordType,
    parse_fixed,
    reconcile,
)
from engine.cost.window import Bucket

RECORDS_MAX: Final = 100_000  # that are held against our costs at once
_WIDE: Final = Context(prec=60)  # numeric(38, 18), to the last digit
_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "billed_usage.sql").read_text(encoding="utf-8"))


class TooMuchBilled(Exception):
    """The stretch has more records than are read at once."""


class Imported(Struct, frozen=True):
    """What came of an import."""

    added: int
    known: int  # records that were there, and say the same
    contradicted: list[str]  # records that were there, and say otherwise: they stay as they were
    prices: int


class BilledUsages(OnSession):
    """One session. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str, lease_s: float, statement_timeout_s: float, costs: CostStore) -> None:
        """`costs`: what we said."""
        settings = session_settings(schema, lease_s, statement_timeout_s, "billed")
        self._session = Session(dsn, settings, statement_timeout_s, statement_timeout_s)
        self._costs = costs

    async def take_in(self, usages: Sequence[BilledUsage], prices: Sequence[ListPrice]) -> Imported:
        """One transaction. A record that comes again adds nothing; a price takes the place of the one that began with it."""
        once = list({usage.record: usage for usage in usages}.values())
        latest = list({(price.sku, price.unit, price.from_us): price for price in prices}.values())
        columns = (
            [each.record for each in once],
            [each.sku for each in once],
            [each.unit for each in once],
            [each.begin_us for each in once],
            [each.end_us for each in once],
            [_numeric(each.quantity) for each in once],
            [each.endpoint for each in once],
            [each.type.value for each in once],
        )

        async def work(connection: Any) -> Imported:
            added = len(await connection.fetch(_QUERIES["add_usage"], *columns))
            contradicted = [row["record"] for row in await connection.fetch(_QUERIES["contradicted"], *columns)]
            await connection.execute(
                _QUERIES["set_prices"],
                [each.sku for each in latest],
                [each.unit for each in latest],
                [each.from_us for each in latest],
                [each.until_us for each in latest],
                [each.currency for each in latest],
                [_numeric(each.amount) for each in latest],
            )
            return Imported(added, len(once) - added - len(contradicted), contradicted, len(latest))

        return await self._session.repeatable(work)

    async def reconciled(self, begin_us: int, end_us: int, currency: str, models: dict[str, str]) -> Reconciled:
        """The hours that begin in [begin_us, end_us): billed beside what we said GPUs cost, without overhead, which no provider
        of them bills. `models` names the model that an endpoint serves, where that is not its own name.

        Raises TooMuchBilled."""
        usages, prices = await self._session.repeatable(lambda connection: _read(connection, begin_us, end_us))
        endpoints = {model: endpoint for endpoint, model in models.items()}
        ours: dict[tuple[str, int], int | None] = {}
        faults: set[str] = set()
        for each in await self._costs.sums(begin_us, end_us, by=("model", "hour")):
            if each.bucket == Bucket.OVERHEAD:
                continue
            key = endpoints.get(each.model, each.model), each.hour_us
            before = ours.get(key, 0)
            is_other = each.currency not in ("", currency)
            if is_other:
                faults.add(f"model {each.model}: our rates are in {each.currency} and not in {currency}")
            ours[key] = None if before is None or each.unknown or is_other else before + each.amount
        found = reconcile(usages, Prices(prices), ours, currency, begin_us, end_us)
        return Reconciled(found.hours, sorted({*found.faults, *faults}))


async def _read(connection: Any, begin_us: int, end_us: int) -> tuple[list[BilledUsage], list[ListPrice]]:
    rows = await connection.fetch(
        _QUERIES["usage_of"], max(0, begin_us - SPAN_US_MAX), begin_us, end_us, RECORDS_MAX + 1
    )
    if len(rows) > RECORDS_MAX:
        raise TooMuchBilled(f"more than {RECORDS_MAX:,} records were billed in the stretch")
    usages = [
        BilledUsage(
            *(row["record"], row["sku"], row["unit"], row["begin_us"], row["end_us"]),
            *(parse_fixed("quantity", row["quantity"]), row["endpoint"], RecordType(row["type"])),
        )
        for row in rows
    ]
    skus = sorted({usage.sku for usage in usages})
    prices = [
        ListPrice(
            *(row["sku"], row["unit"], row["currency"], row["from_us"], row["until_us"]),
            parse_fixed("amount", row["amount"]),
        )
        for row in await connection.fetch(_QUERIES["prices_of"], skus)
    ]
    return usages, prices


def _numeric(fixed: int) -> Decimal:
    return Decimal(fixed).scaleb(-18, _WIDE)
