"""What requests earned and cost, hour by hour, as one HTML file with its plots inside it: it asks no other machine for
anything. Drawn by plotly (the extra `report`)."""

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from actors.cost_store import CostSum
from actors.web.times import instant
from engine.cost.exchange import Used, date_of
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import Key, Margin
from engine.cost.window import Bucket
from engine.money import PICO, amount_text

CUSTOMERS_SHOWN: Final = 10  # the greatest; the others are one line
OTHERS: Final = "all others"
NOBODY: Final = "nobody known"
_HEIGHT: Final = 380
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: .25em .8em; text-align: left; border-bottom: 1px solid #ddd }
td.figure { text-align: right; font-variant-numeric: tabular-nums }
"""

Series = Mapping[str, Sequence[float | None]]  # name -> a value an hour; None: not known, and a gap in the line
Row = tuple[Key, Margin]
Sum = Callable[[Margin], int | None]
_AMOUNTS: Final[tuple[Sum, ...]] = (lambda sums: sums.revenue, lambda sums: sums.cost, lambda sums: sums.margin)


class PlotlyAbsent(Exception):
    """plotly is not installed."""


def page(
    margins: Sequence[Row], costs: Sequence[CostSum], from_us: int, until_us: int, used: Sequence[Used] = ()
) -> str:
    """`margins` by account, model and hour; `costs` by hour: of hours that begin in [from_us, until_us), both of which begin
    one. A currency has its own plots; `used` are the rates at which margins were converted. Raises PlotlyAbsent."""
    hours = range(from_us, until_us, HOUR_US)
    stretch = f"{instant(from_us)} to {instant(until_us)}"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>tallygate margin</title>",
        f"<style>{_STYLE}</style></head><body><h1>Margin of direct cost</h1><p>{stretch}, by the hour.",
        "Revenue is what was charged for requests, cost what they took of the GPUs; what no request took stands in the last",
        "plot. Where the cost of a request is not known, or is in another currency, there is no margin, and a line has a",
        "gap.</p>",
        *(f"<p>{_rate(each)}</p>" for each in used),
    ]
    currencies = sorted({key.currency for key, _ in margins} | {row.currency for row in costs})
    plots = _Plots()
    for currency in currencies:
        of = [(key, sums) for key, sums in margins if key.currency == currency]
        parts.append(f"<h2>{html.escape(currency or 'No currency')}</h2>")
        for title, name in (("model", lambda key: key.model), ("customer", _customers(of))):
            groups = _grouped(of, name)
            parts += [
                _table(title, groups),
                plots.lines(f"Margin by {title}", hours, _series(groups, hours, lambda sums: sums.margin), currency),
                plots.bars(f"Cost by {title}", hours, _series(groups, hours, lambda sums: sums.known_cost), currency),
                plots.bars(f"Revenue by {title}", hours, _series(groups, hours, lambda sums: sums.revenue), currency),
            ]
        buckets = {bucket.value: _of_bucket(costs, currency, bucket, hours) for bucket in Bucket}
        parts.append(plots.bars("Where the GPUs' cost went", hours, buckets, currency))
    return "\n".join([*parts, "" if currencies else "<p>Nothing was charged or served.</p>", "</body></html>"])


def _rate(used: Used) -> str:
    rate = used.rate
    said = f"{date_of(used.day)}: 1 {rate.source} is {amount_text(rate.pico)} {rate.target}, recorded for {date_of(rate.day)}"
    return html.escape(said)


def _customers(rows: Iterable[Row]) -> Callable[[Key], str]:
    weights: dict[str, int] = {}
    for key, sums in rows:
        weights[key.account] = weights.get(key.account, 0) + abs(sums.revenue) + sums.known_cost
    first = sorted(weights, key=lambda account: (-weights[account], account))[:CUSTOMERS_SHOWN]
    return lambda key: (key.account or NOBODY) if key.account in first else OTHERS


def _grouped(rows: Iterable[Row], name: Callable[[Key], str]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for key, sums in rows:
        groups.setdefault(name(key), []).append((key, sums))
    return dict(sorted(groups.items()))


def _total(rows: Iterable[Row], of: Sum) -> int | None:
    found = [of(sums) for _, sums in rows]
    return None if None in found else sum(amount for amount in found if amount is not None)


def _series(groups: Mapping[str, list[Row]], hours: range, of: Sum) -> Series:
    return {
        name: [_drawn(_total([row for row in rows if row[0].hour_us == hour], of)) for hour in hours]
        for name, rows in groups.items()
    }


def _of_bucket(costs: Iterable[CostSum], currency: str, bucket: Bucket, hours: range) -> list[float | None]:
    amounts = {row.hour_us: row.amount for row in costs if (row.currency, row.bucket) == (currency, bucket.value)}
    return [_drawn(amounts.get(hour, 0)) for hour in hours]


def _drawn(pico: int | None) -> float | None:
    return None if pico is None else pico / PICO


def _table(title: str, groups: Mapping[str, list[Row]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in (title, "requests", "revenue", "cost", "margin", "without cost"))
    body = ""
    for name, rows in groups.items():
        amounts = [_total(rows, of) for of in _AMOUNTS]
        figures = [
            str(sum(sums.requests for _, sums in rows)),
            *("not known" if amount is None else amount_text(amount) for amount in amounts),
            str(sum(sums.without_cost + sums.foreign_cost for _, sums in rows)),
        ]
        cells = "".join(f"<td class='figure'>{figure}</td>" for figure in figures)
        body += f"<tr><td>{html.escape(name)}</td>{cells}</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


class _Plots:
    """The first plot brings the library along, the others use it."""

    def __init__(self) -> None:
        try:
            import plotly.graph_objects as charts
            import plotly.io as drawing
        except ImportError as error:
            raise PlotlyAbsent("plotly is not installed: pip install 'tallygate[report]'") from error
        self._charts: Any = charts
        self._drawing: Any = drawing
        self._drawn = False

    def lines(self, title: str, hours: range, series: Series, currency: str) -> str:
        """A line for each name."""
        drawn = [
            self._charts.Scatter(x=_instants(hours), y=list(values), name=html.escape(name), mode="lines+markers")
            for name, values in series.items()
        ]
        return self._figure(title, drawn, currency)

    def bars(self, title: str, hours: range, series: Series, currency: str) -> str:
        """One on the other."""
        drawn = [
            self._charts.Bar(x=_instants(hours), y=list(values), name=html.escape(name))
            for name, values in series.items()
        ]
        return self._figure(title, drawn, currency)

    def _figure(self, title: str, drawn: list[Any], currency: str) -> str:
        chart = self._charts.Figure(drawn)
        chart.update_layout(height=_HEIGHT, template="plotly_white", barmode="relative", yaxis_title=currency)
        made = self._drawing.to_html(
            chart, full_html=False, include_plotlyjs=not self._drawn, config={"displaylogo": False}
        )
        self._drawn = True
        return f"<h3>{html.escape(title)}</h3>{made}"


def _instants(hours: range) -> list[str]:
    return [instant(hour) for hour in hours]
