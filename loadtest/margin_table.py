"""What a run earned beside what its GPUs cost, as a table; and whether it adds up to the fleet's bill and the charges."""

from collections.abc import Iterable
from typing import Final

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from actors.assembly import cost_store, margin_store, topic_reader
from actors.cost_store import CostSum
from actors.margin import Answer, find_margins
from config.settings import Settings
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import By, Key, Margin, told_apart
from engine.cost.window import Bucket
from loadtest.oracle.accounts import Rated

CUSTOMERS_SHOWN: Final = 8
CENT: Final = 10**10  # pico


class Earned(Struct):
    """A run's margin, and what its topics and tables say of the same. Money in pico."""

    by_model: list[tuple[Key, Margin]]
    by_customer: list[tuple[Key, Margin]]
    buckets: dict[str, int]  # by the windows on the topic
    rows: dict[str, int]  # by bucket, of Postgres
    revenue: int
    request_cost: int
    without_cost: int
    provisional: int
    bill: int
    live: bool  # whether the rows of the margin in Postgres say the same as the topics

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
        found = [f"margin: {one} {left}, {other} {right}" for one, left, other, right in pairs if left != right]
        return found if self.live else [*found, "margin: the rows in Postgres are not what the topics come to"]


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
    live = await margin_rows(settings, from_us, until_us)
    return summed(answer, {row.bucket: row.amount for row in rows}, live, bill)


async def margin_rows(settings: Settings, from_us: int, until_us: int) -> list[tuple[Key, Margin]]:
    """By account and model, as the last checkpoints of the margin actors have it."""
    store = margin_store(settings)
    await store.start()
    try:
        return await store.sums(from_us - HOUR_US, until_us + HOUR_US, (By.ACCOUNT, By.MODEL))
    finally:
        await store.stop()


def summed(answer: Answer, rows: dict[str, int], live: list[tuple[Key, Margin]], bill: int) -> Earned:
    """`answer` and `live` are told apart by account and model, and in one currency."""
    buckets: dict[str, int] = {}
    for (_, bucket), amount in answer.buckets.items():
        buckets[bucket] = buckets.get(bucket, 0) + amount
    return Earned(
        by_model=_merged(answer.rows, By.MODEL),
        by_customer=_merged(answer.rows, By.ACCOUNT),
        buckets=buckets,
        rows=rows,
        revenue=sum(sums.revenue for _, sums in answer.rows),
        request_cost=sum(sums.known_cost for _, sums in answer.rows),
        without_cost=sum(sums.without_cost for _, sums in answer.rows),
        provisional=sum(sums.provisional for _, sums in answer.rows),
        bill=bill,
        live=live == answer.rows,
    )


def charges(rated: Iterable[Rated]) -> int:
    """Pico that the oracle charges for these events."""
    return sum(amount for event in rated for _, amount in event.prices.values())


def _merged(rows: Iterable[tuple[Key, Margin]], by: By) -> list[tuple[Key, Margin]]:
    """One row for each of what is asked for, the highest revenue first."""
    found: dict[Key, Margin] = {}
    for key, sums in rows:
        found.setdefault(told_apart(key, (by,)), Margin()).add(sums)
    return sorted(found.items(), key=lambda each: (-each[1].revenue, each[0]))


def show(console: Console, earned: Earned) -> None:
    """Margin by model and customer, and where the rest of the bill went."""
    table = Table(title="What requests earned, and what they cost", title_justify="left")
    for name in ("", "requests", "revenue", "cost", "margin", "%"):
        table.add_column(name, justify="left" if not name else "right")
    for key, sums in earned.by_model:
        table.add_row(f"on {key.model}", *_figures(sums))
    table.add_section()
    for key, sums in earned.by_customer[:CUSTOMERS_SHOWN]:
        table.add_row(f"of {key.account}", *_figures(sums))
    rest = earned.by_customer[CUSTOMERS_SHOWN:]
    if rest:
        others = Margin()
        for _, sums in rest:
            others.add(sums)
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
