"""The report of `make bench`: one HTML file with its plots inside it, which asks no other machine for anything.

It is made of `build/bench.json` alone, so it can be made again from a file that somebody sends.
"""

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import plotly.graph_objects as charts
import plotly.io as drawing

from loadtest.bench.goals import Goal, goals_of

HEIGHT: Final = 380
STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: .25em .8em; text-align: left; border-bottom: 1px solid #ddd }
td.figure { text-align: right; font-variant-numeric: tabular-nums } .missed { color: #a40000 } code { background: #f4f4f4 }
"""

Lines = Mapping[str, tuple[Sequence[Any], Sequence[Any]]]  # name -> x, y


def page(figures: Mapping[str, Any]) -> str:
    """The whole report."""
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>tallygate bench</title>",
        f"<style>{STYLE}</style></head><body><h1>tallygate bench</h1>",
        _facts(figures),
        "<h2>Goals</h2>",
        _goals(goals_of(figures)),
    ]
    plots = list(_plots(figures))
    # The first plot brings the library along, the others use it.
    parts += [
        f"<h2>{html.escape(title)}</h2>"
        + drawing.to_html(chart, full_html=False, include_plotlyjs=number == 0, config={"displaylogo": False})
        for number, (title, chart) in enumerate(plots)
    ]
    parts += ["<h2>Everything that was measured</h2><pre>", _everything(figures), "</pre></body></html>"]
    return "\n".join(parts)


def _facts(figures: Mapping[str, Any]) -> str:
    rows = [*figures["machine"].items(), ("began", figures["began"]), ("seconds", figures["seconds"])]
    rows += [(f"command of {name}", " ".join(command)) for name, command in figures["commands"].items()]
    return _table(("fact", "value"), [(str(name), str(value)) for name, value in rows])


def _goals(goals: Sequence[Goal]) -> str:
    rows = []
    for goal in goals:
        kind = "" if goal.met is not False else " class='missed'"
        found = "not measured" if goal.found is None else f"{goal.found:,g}"
        rows.append(
            f"<tr{kind}><td>{html.escape(goal.what)}</td><td class='figure'>{found}</td>"
            f"<td>{html.escape(goal.wanted)}</td></tr>"
        )
    return "<table><tr><th>what</th><th>found</th><th>goal</th></tr>" + "".join(rows) + "</table>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{body}</table>"


def _everything(figures: Mapping[str, Any]) -> str:
    return html.escape(orjson.dumps(figures, option=orjson.OPT_INDENT_2).decode())


# --------------------------------------------------------------------------------------------------------------- plots


def _plots(figures: Mapping[str, Any]) -> Iterator[tuple[str, charts.Figure]]:
    ramp = figures["parts"].get("one_shard", {}).get("ramp")
    if ramp:
        steps = ramp["steps"]
        offered = [step["offered_per_s"] for step in steps]
        rated = [step["rated_per_s"] for step in steps]
        yield (
            "Throughput against offered load",
            _lines({"rated": (offered, rated), "offered": (offered, offered)}, "offered, events/s", "events/s"),
        )
        delays: Lines = {
            f"append → webhook {point}": (offered, [step["webhook_ms"].get(point) for step in steps])
            for point in ("p50", "p99")
        }
        yield "Latency against offered load", _lines(delays, "offered, events/s", "ms", log=True)
        yield (
            "Lag",
            _lines(
                {f"{step['offered_per_s']:,.0f} events/s": _series(step, "lag") for step in steps},
                "s",
                "records behind",
            ),
        )
        roles = list(steps[0]["cores"])
        yield (
            "Processor by stage",
            _lines(
                {role: (offered, [step["cores"].get(role) for step in steps]) for role in roles},
                "offered, events/s",
                "cores",
            ),
        )
        yield (
            "Memory by stage",
            _lines(
                {role: (offered, [step["rss_mib"].get(role) for step in steps]) for role in roles},
                "offered, events/s",
                "MiB",
            ),
        )
        asked = ramp["steps_with_checks"]
        checked = [step["offered_per_s"] for step in asked]
        answers: Lines = {
            point: (checked, [step["check_ms"].get(point) for step in asked]) for point in ("p50", "p99", "p99.9")
        }
        yield "Check at a door against offered load", _lines(answers, "offered, events/s", "ms", log=True)
        if half := ramp["half"]:
            curves: Lines = {
                "check at a door": _curve(half["check_curve"]),
                "append → webhook": _curve(half["webhook_curve"]),
            }
            yield "At half of saturation", _lines(curves, "percent of calls", "ms", log=True)
    patterns = figures["parts"].get("patterns", {}).get("contenders")
    if patterns:
        names = list(patterns)
        for title, key in (
            ("Check, p50 in ms", "check_p50_ms"),
            ("Event → alert, p50 in ms", "alert_p50_ms"),
            ("Overspend of 64 callers, in requests", "overspend_requests"),
        ):
            yield title, _bars(names, [patterns[name].get(key) for name in names])


def _series(step: Mapping[str, Any], field: str) -> tuple[list[float], list[float]]:
    return [look["at_s"] for look in step["series"]], [look[field] for look in step["series"]]


def _curve(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [point[0] for point in points], [point[1] for point in points]


def _lines(lines: Lines, x: str, y: str, *, log: bool = False) -> charts.Figure:
    chart = charts.Figure(
        [charts.Scatter(x=list(xs), y=list(ys), name=name, mode="lines+markers") for name, (xs, ys) in lines.items()]
    )
    chart.update_layout(height=HEIGHT, template="plotly_white", xaxis_title=x, yaxis_title=y)
    if log:
        chart.update_yaxes(type="log")
    return chart


def _bars(names: Sequence[str], values: Sequence[float | None]) -> charts.Figure:
    chart = charts.Figure([charts.Bar(x=list(names), y=list(values))])
    chart.update_layout(height=HEIGHT, template="plotly_white")
    chart.update_yaxes(type="log")
    return chart
