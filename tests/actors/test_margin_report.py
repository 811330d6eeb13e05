"""The report of margin: every amount is there, nothing is asked of another machine, and no name is markup."""

import re
import sys

import pytest

from actors.cost_store import CostSum
from actors.margin_report import NOBODY, OTHERS, PlotlyAbsent, page
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import Key, Margin

H = 490_000 * HOUR_US
D = 10**12


def row(account: str, hour: int, revenue: int, cost: int, **more: int) -> tuple[Key, Margin]:
    return Key(H + hour * HOUR_US, account, "atlas", "", "", "USD"), Margin(revenue, cost, 1, **more)


def spent(bucket: str, hour: int, amount: int, currency: str = "USD") -> CostSum:
    return CostSum("", "", "", H + hour * HOUR_US, bucket, currency, amount, 0, 0, 0, 0, 0)


MARGINS = [row("acme", 0, 9 * D, 2 * D), row("acme", 1, 5 * D, 7 * D), row("", 1, 0, 3 * D)]
COSTS = [spent("direct", 0, 2 * D), spent("hard_idle", 0, 4 * D)]


def plots(text: str) -> list[str]:
    """What each plot draws, as JSON."""
    return re.findall(r"Plotly\.newPlot\(\s*\"[^\"]+\",\s*(\[.*?\]),\s*\{\"", text, re.DOTALL)


def test_each_hour_s_amounts_are_drawn_by_model_and_customer() -> None:
    text = page(MARGINS, COSTS, H, H + 2 * HOUR_US)
    assert text.count("Plotly.newPlot(") >= 7
    margin_by_model, cost_by_model, *_, by_bucket = plots(text)
    assert '"y":[7.0,-5.0]' in margin_by_model.replace(" ", "")
    assert '"y":[2.0,10.0]' in cost_by_model.replace(" ", "")
    assert '"y":[4.0,0.0]' in by_bucket.replace(" ", "")
    assert "2025-11-24T16:00:00Z" in margin_by_model


def test_totals_stand_in_tables() -> None:
    text = page(MARGINS, COSTS, H, H + 2 * HOUR_US)
    assert (
        "<tr><td>acme</td><td class='figure'>2</td><td class='figure'>14</td><td class='figure'>9</td>"
        "<td class='figure'>5</td><td class='figure'>0</td></tr>"
    ) in text
    assert f"<td>{NOBODY}</td>" in text


def test_what_is_not_known_is_a_gap_and_no_amount() -> None:
    text = page([row("acme", 0, 9 * D, 2 * D), row("acme", 1, 5 * D, 0, without_cost=1)], [], H, H + 2 * HOUR_US)
    assert '"y":[7.0,null]' in plots(text)[0].replace(" ", "")
    assert "not known" in text


def test_the_smallest_customers_are_one_line() -> None:
    many = [row(f"cus-{number:02d}", 0, number * D, 0) for number in range(1, 14)]
    text = page(many, [], H, H + HOUR_US)
    assert OTHERS in text and "cus-13" in text
    assert "cus-03" not in text


def test_a_currency_has_its_own_plots() -> None:
    text = page(MARGINS, [spent("direct", 0, D, "EUR")], H, H + HOUR_US)
    assert "<h2>EUR</h2>" in text and "<h2>USD</h2>" in text


def test_it_asks_no_other_machine_for_anything_and_no_name_is_markup() -> None:
    text = page([row("<script src='x'>", 0, D, D)], COSTS, H, H + HOUR_US)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=", text)
    assert "Nothing was charged" in page([], [], H, H + HOUR_US)


def test_without_plotly_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(PlotlyAbsent, match=r"tallygate\[report\]"):
        page(MARGINS, COSTS, H, H + HOUR_US)
