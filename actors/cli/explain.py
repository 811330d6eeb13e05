"""`tallygate explain`: what made a charge."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from actors.cli.over_http import ApiKey, Url, get, path_to
from actors.cli.terminal import AsJson, console, new_table

# Numbers of tiers that no price has: what lies in them owes nothing.
_WITHOUT_RATES = {-1: "beyond the maximum", -2: "a quantity grant", -3: "an allowance"}


def explain_event(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id.")],
    account: Annotated[str, typer.Option(help="The paying account.")],
    source: Annotated[str, typer.Option(help="The event's source.")],
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show each decision and number of what an event was charged: meter, quantity, period, version, tiers, offset.

    Exit status 2: it was not rated, and why."""
    rating = get(url, key, path_to("events", event_id, "rating"), account=account, source=source)
    if as_json:
        typer.echo(orjson.dumps(rating, option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo(f"{rating['id']} from {rating['source']}: {rating['amount']} {rating['currency']}, paid by {account}")
    for name, text in _rating_facts(rating):
        typer.echo(f"{name + ':':9} {text}")
    console().print(_rating_table(rating["lines"], "Lines"))
    for correction in rating["corrections"]:
        late = f", an adjustment of the closed period from {correction['adjusts']}" if correction["adjusts"] else ""
        title = f"{correction['kind']} at offset {correction['offset']}: {correction['amount']}{late}"
        console().print(_rating_table(correction["lines"], title))
    if rating["corrections"]:
        typer.echo(f"{'due:':10}{rating['due']} {rating['currency']}")


def _rating_facts(rating: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    period, hold = rating["period"], rating["hold"]
    yield "event", f"{rating['event']['type']} {orjson.dumps(rating['event']['data']).decode()}"
    state = "final" if rating["final"] else "provisional: no checkpoint holds it yet"
    yield "log", f"partition {rating['partition']}, offset {rating['offset']}, appended {rating['appended']}; {state}"
    why = "the event's own time" if hold is None else f"hold {hold['id']} was admitted then; {hold['settled']}"
    yield "rated at", f"{rating['rated_at']} ({why})"
    if rating["adjusts"] is not None:
        yield "adjusts", f"the closed period from {rating['adjusts']}: its difference, posted when the event came"
    yield "prices", f"plan {rating['plan']}, catalogue version {rating['version']}"
    if rating["usage_basis"] != "measured":
        yield "usage", f"{rating['usage_basis']}, not measured"
    payers = rating["paid_by"]
    if payers is not None:
        lots = [f"lot {lot['lot']} ({lot['kind']}) {lot['amount']}" for lot in payers["lots"]]
        owed = [f"{what} {payers[what]}" for what in ("debt", "refunded") if payers[what] != "0"]
        segment = f"of usage from {payers['start']} to {payers['end']}, all together and as of now"
        yield "paid by", f"{', '.join([*lots, *owed]) or 'nobody: it is free'} {segment}"
    for cap in rating["caps"]:
        kind = "hard" if cap["hard"] else "soft"
        where = f" of {cap['scope']}" if cap["scope"] else ""
        spent = f"{cap['spent']} of {cap['amount']} {cap['unit'] or 'spent'} in its {cap['window']}"
        yield "counts in", f"cap {cap['cap']}{where} ({kind}): {spent}"
    for each in rating["waived"]:
        yield "waived", f"{each['amount']} beyond cap {each['cap']} (offset {each['offset']})"
    for letter in rating["set_aside"]:
        where = f"partition {letter['partition']}, offset {letter['offset']}"
        yield "set aside", f"{where} under the same id: {letter['reason']}: {letter['detail']}. {letter['next_step']}"
    for alert in rating["alerts"]:
        yield "alert", f"{alert['type']} {orjson.dumps(alert['data']).decode()}"
    yield "period", f"{period['start']} to {period['end']} ({period['zone']}, from day {period['anchor_day']})"


def _rating_table(lines: Iterable[Mapping[str, Any]], title: str) -> Table:
    numbers = ("in tier", "amount", "per", "charged")
    table = new_table(title, "price", "meter", "cell", "quantity", "tier", *numbers, right=("quantity", *numbers))
    for line in lines:
        meter = line["meter"] if line["meter"] == line["counts"] else f"{line['meter']} ({line['counts']})"
        cell = " ".join(f"{name}={value}" for name, value in line["cell"].items())
        rows = [
            (_tier_span(tier), tier["quantity"], tier["amount"], tier["per"], tier["charged"]) for tier in line["tiers"]
        ]
        if line["repricing"] != "0":
            rows.append(("re-pricing of earlier usage", "", "", "", line["repricing"]))
        if line["beyond"] != "0":
            why = "later versions, rounding" if line.get("due") is None else f"no usage: {line['due']} of its period"
            rows.append((why, "", "", "", line["beyond"]))
        if len(rows) != 1:
            used = "" if line["used_before"] is None else f" ({line['used_before']} used before)"
            rows.append((f"all{used}", "", "", "", line["amount"]))
        price = f"{line['price']} (agreed)" if line["agreed_since"] else line["price"]
        head = [price, meter, cell, line["quantity"]]
        for number, row in enumerate(rows):
            table.add_row(*(head if number == 0 else [""] * len(head)), *row)
        table.add_section()
    return table


def _tier_span(tier: Mapping[str, Any]) -> str:
    number, above, up_to = tier["tier"], tier["above"], tier["up_to"]
    if number in _WITHOUT_RATES:
        return _WITHOUT_RATES[number]
    if number == 0:
        return f"included: {above} to {up_to}"
    if up_to is None:
        return f"{number}: above {above}" if above != "0" else f"{number}"
    return f"{number}: {above} to {up_to}"
