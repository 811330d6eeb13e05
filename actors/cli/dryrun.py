"""`tallygate catalogue dryrun`: what logged usage would have earned under a catalogue that is not published."""

import asyncio
from collections.abc import Callable
from heapq import nlargest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from actors.cli.proving import BaseFolder, OnePartition, proving
from actors.cli.terminal import WRONG_INPUT, AsJson, console, expected_errors, fail, instant_of, print_rows
from config.catalogue import load_file
from config.settings import Settings
from engine.money import amount_text

if TYPE_CHECKING:
    from actors.dryrun import Customer, DryRun, Takings, Turn

CUSTOMERS_SHOWN = 20
_AMOUNTS = ("events", "events under it", "before", "under it", "difference")


def dry_run(
    file: Annotated[Path, typer.Argument(help="The catalogue to try, in YAML.")],
    from_time: Annotated[
        str | None, typer.Option("--from", help="Event time from which it is in force and counts; default: the start.")
    ] = None,
    to_time: Annotated[
        str | None, typer.Option("--to", help="Event time up to which it counts; default: the newest checkpoint.")
    ] = None,
    customers: Annotated[
        int, typer.Option(min=0, help="How many customers to show, the largest differences first.")
    ] = CUSTOMERS_SHOWN,
    bases: BaseFolder = None,
    partition: OnePartition = None,
    as_json: AsJson = False,
) -> None:
    """Rate logged usage again under a catalogue, and show what each plan and customer would have been charged.

    Charges are before credit. Only reads. With --json: a line for each customer, plan and kind of record that comes out
    otherwise, and for each currency's total."""
    from actors import proofs
    from actors.dryrun import Draft

    since = None if from_time is None else instant_of("--from", from_time)
    until = None if to_time is None else instant_of("--to", to_time)
    if since is not None and until is not None and since >= until:
        fail(f"--to {to_time}: is not after --from {from_time}", WRONG_INPUT)
    with expected_errors():
        draft = Draft(load_file(file), since, until)

    async def act(settings: Settings, say: Callable[[str], None]) -> _Totals:
        totals = _Totals(customers)
        async for found in proofs.dry_run(settings, bases, partition, draft, say):
            totals.add(found)
            if as_json:
                for customer in found.customers:
                    _line(customer=customer.account, plan=customer.plan, **_shown(customer.currency, customer.takings))
        return totals

    with proving("Rating again") as (settings, say):
        totals = asyncio.run(act(settings, say))
    if as_json:
        totals.tell_json()
    else:
        totals.tell()


class _Totals:
    """Of all partitions, in memory for a number of plans and the customers shown, however many there are."""

    def __init__(self, customers_shown: int) -> None:
        self._shown = customers_shown
        self._first: list[Customer] = []  # the largest differences so far
        self._customers = 0
        self._plans: dict[
            tuple[str, str], tuple[int, Takings]
        ] = {}  # (plan, currency) -> its customers, and what they bring
        self._turns: list[tuple[int, Turn]] = []  # with their partition

    def add(self, found: "DryRun") -> None:
        from actors.dryrun import Takings

        for customer in found.customers:
            place = customer.plan, customer.currency
            count, takings = self._plans.setdefault(place, (0, Takings()))
            takings.add(customer.takings)
            self._plans[place] = count + 1, takings
        self._customers += len(found.customers)
        self._first = nlargest(
            self._shown, [*self._first, *found.customers], key=lambda one: abs(one.takings.difference)
        )
        self._turns += [(found.partition, turn) for turn in found.turns]

    def _by_currency(self) -> "dict[str, Takings]":
        from actors.dryrun import Takings

        totals: dict[str, Takings] = {}
        for (_, currency), (_, takings) in self._plans.items():
            totals.setdefault(currency, Takings()).add(takings)
        return totals

    def tell(self) -> None:
        plans = [
            {"plan": plan, "customers": count, **_columns(currency, takings)}
            for (plan, currency), (count, takings) in sorted(self._plans.items())
        ]
        right = ("customers", *_AMOUNTS)
        print_rows("Plans", plans, ("plan", "currency", "customers", *_AMOUNTS), right)
        first = [
            {"customer": one.account, "plan": one.plan, **_columns(one.currency, one.takings)} for one in self._first
        ]
        if first:
            title = f"Customers, {len(first)} of {self._customers:,}: the largest differences"
            print_rows(title, first, ("customer", "plan", "currency", *_AMOUNTS), right)
        for partition, turn in self._turns:
            why = f": {turn.detail}" if turn.detail else ""
            console().print(
                f"{turn.records:,} records of partition {partition} are {turn.before} as published and {turn.after} under "
                f"the draft; the first at offset {turn.offset}{why}"
            )
        for currency, takings in sorted(self._by_currency().items()):
            typer.echo(
                f"total {amount_text(takings.before)} {currency} as published, {amount_text(takings.after)} under the draft: "
                f"difference {amount_text(takings.difference)}{_percent(takings)}"
            )

    def tell_json(self) -> None:
        for (plan, currency), (count, takings) in sorted(self._plans.items()):
            _line(plan=plan, customers=count, **_shown(currency, takings))
        for partition, turn in self._turns:
            _line(
                outcome=turn.before,
                outcome_after=turn.after,
                records=turn.records,
                partition=partition,
                first_offset=turn.offset,
                detail=turn.detail,
            )
        for currency, takings in sorted(self._by_currency().items()):
            _line(total=currency, **_shown(currency, takings))


def _shown(currency: str, takings: "Takings") -> dict[str, Any]:
    return {
        "currency": currency,
        "events": takings.events_before,
        "events_after": takings.events_after,
        "before": amount_text(takings.before),
        "after": amount_text(takings.after),
        "difference": amount_text(takings.difference),
    }


def _columns(currency: str, takings: "Takings") -> dict[str, Any]:
    shown = _shown(currency, takings).values()
    return dict(zip(("currency", *_AMOUNTS), shown, strict=True))


def _percent(takings: "Takings") -> str:
    return f" ({takings.difference / takings.before * 100:+.2f}%)" if takings.before else ""


def _line(**fields: Any) -> None:
    typer.echo(orjson.dumps(fields).decode())
