"""What a run earned beside what its GPUs cost, as a table; and whether it adds up to the fleet's bill and the charges."""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from actors.assembly import cost_store, topic_reader
from actors.cost_store import CostSum
from actors.margin import Answer, find_margins
from config.settings import Settings
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import By, Margin
from engine.cost.window import Bucket
from loadtest.oracle.accounts import Rated

CUSTOMERS_SHOWN: Final = 8
CENT: Final = 10**10  # pico


class Earned(Struct):
    """A run's margin, and what its topics and tables say of the same. Money in pico."""

    by_model: list[Margin]
    by_customer: list[Margin]
    buckets: dict[str, int]  # by the windows on the topic
    rows: dict[str, int]  # by bucket, of Postgres
    revenue: int
    request_cost: int
    without_cost: int
    provisional: int
    bill: int

    def wrong(self, charged: int) -> list[str]:
        """Sentences, none where all of it is equal to the last pico. `charged` is what the oracle makes of the run's usage."""
        direct = self.buckets.get(Bucket.DIRECT, 0)
        pairs = (
            ("requests cost", self.request_cost, "windows say of direct cost", direct),
            ("all buckets of all windows come to", sum(self.buckets.values()), "the fleet's bill is", self.bill),
            ("all rows in Postgres come to", sum(self.rows.values()), "the fleet's bill is", self.bill),
            ("revenue is", self.revenue, "the oracle charges", charged),
            ("requests without a known cost are", self.without_cost, "expected", 0),
        )
        return [f"margin: {one} {left}, {other} {right}" for one, left, other, right in pairs if left != right]


async def cost_rows(settings: Settings, from_us: int, until_us: int) -> list[CostSum]:
    """By bucket, as the last checkpoints of the cost actors have it."""
    store = cost_store(settings)
    await store.start()
    try:
        return await store.sums(from_us - HOUR_US, until_us + HOUR_US, by=())
    finally:
        await store.stop()


async def earned(settings: Settings, from_us: int, until_us: int, bill: int) -> Earned:
    """Of the requests that ended in [from_us, until_us), and of the GPUs of that time."""
    reader = topic_reader(settings)
    await reader.start()
    try:
        topics = settings.kafka.topic_rated, settings.kafka.topic_costs
        answer = await find_margins(reader, *topics, from_us - HOUR_US, until_us + HOUR_US, (By.ACCOUNT, By.MODEL))
    finally:
        await reader.stop()
    rows = await cost_rows(settings, from_us, until_us)
    return summed(answer, {row.bucket: row.amount for row in rows}, bill)


def summed(answer: Answer, rows: dict[str, int], bill: int) -> Earned:
    """`answer` is told apart by account and model, and in one currency."""
    buckets: dict[str, int] = {}
    for (_, bucket), amount in answer.buckets.items():
        buckets[bucket] = buckets.get(bucket, 0) + amount
    return Earned(
        by_model=_merged(answer.rows, By.MODEL),
        by_customer=_merged(answer.rows, By.ACCOUNT),
        buckets=buckets,
        rows=rows,
        revenue=sum(row.revenue for row in answer.rows),
        request_cost=sum(row.known_cost for row in answer.rows),
        without_cost=sum(row.without_cost for row in answer.rows),
        provisional=sum(row.provisional for row in answer.rows),
        bill=bill,
    )


def charges(rated: Iterable[Rated]) -> int:
    """Pico that the oracle charges for these events."""
    return sum(amount for event in rated for _, amount in event.prices.values())


def _merged(rows: Iterable[Margin], by: By) -> list[Margin]:
    """One row for each of what is asked for, the highest revenue first."""
    found: dict[str, Margin] = {}
    for row in rows:
        name = row.model if by is By.MODEL else row.account
        sums = found.get(name)
        if sums is None:
            account, model = (name, "") if by is By.ACCOUNT else ("", name)
            sums = found[name] = Margin(account, model, "", 0, "", row.currency)
        for field in ("revenue", "known_cost", "requests", "without_cost", "without_revenue", "provisional"):
            setattr(sums, field, getattr(sums, field) + getattr(row, field))
    return sorted(found.values(), key=lambda sums: (-sums.revenue, sums.account, sums.model))


def show(console: Console, earned: Earned) -> None:
    """Margin by model and customer, and where the rest of the bill went."""
    table = Table(title="What requests earned, and what they cost", title_justify="left")
    for name in ("", "requests", "revenue", "cost", "margin", "%"):
        table.add_column(name, justify="left" if not name else "right")
    for row in earned.by_model:
        table.add_row(f"on {row.model}", *_figures(row))
    table.add_section()
    for row in earned.by_customer[:CUSTOMERS_SHOWN]:
        table.add_row(f"of {row.account}", *_figures(row))
    rest = earned.by_customer[CUSTOMERS_SHOWN:]
    if rest:
        others = Margin("", "", "", 0, "", rest[0].currency)
        for field in ("revenue", "known_cost", "requests", "without_cost"):
            setattr(others, field, sum(getattr(row, field) for row in rest))
        table.add_row(f"{len(rest):,} other customers", *_figures(others))
    table.add_section()
    for bucket, amount in sorted(earned.buckets.items(), key=lambda each: -each[1]):
        permille = amount * 1_000 // earned.bill if earned.bill else 0
        table.add_row(f"GPUs: {bucket}", "", "", cents(amount), "", f"{permille / 10:.1f}")
    table.add_row("GPUs: the bill", "", "", cents(earned.bill), "", "100.0")
    console.print(table)


def _figures(row: Margin) -> tuple[str, ...]:
    permille = row.permille
    percent = "unknown" if permille is None else f"{permille / 10:.1f}"
    money = ("unknown" if pico is None else cents(pico) for pico in (row.revenue, row.cost, row.margin))
    return (f"{row.requests:,}", *money, percent)


def cents(pico: int) -> str:
    """For a person: whole hundredths, rounded down. What is checked is never rounded."""
    whole = pico // CENT
    return f"{'-' if whole < 0 else ''}{abs(whole) // 100:,}.{abs(whole) % 100:02d}"
