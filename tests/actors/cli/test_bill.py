"""`tallygate costs bill`: what it makes of exported tables, and what it shows."""

import csv
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.web import billed_routes
from tests.actors.cli.calling import ANSWERS, FakeApi, beside_up, call
from tests.engine.cost.test_billed import PRICE_ROW, ROW

BILL = "/v1/billed-usage"
FOUND: dict[str, Any] = billed_routes.ROUTES[1].example.response


@pytest.fixture(autouse=True)
def bill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, ("POST", BILL), (200, billed_routes.ROUTES[0].example.response))
    monkeypatch.setitem(ANSWERS, ("GET", f"{BILL}/reconciliation"), (200, FOUND))


def tables(folder: Path) -> tuple[str, str]:
    usage, prices = folder / "usage.jsonl", folder / "prices.csv"
    usage.write_bytes(orjson.dumps(ROW | {"usage_quantity": "42.500000000000000000"}) + b"\n\n")
    with prices.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(PRICE_ROW))
        writer.writeheader()
        writer.writerow(PRICE_ROW | {"pricing": orjson.dumps(PRICE_ROW["pricing"]).decode()})
    return str(usage), str(prices)


def test_exported_tables_are_sent_as_records_and_prices(api: FakeApi, tmp_path: Path) -> None:
    beside_up(api.url)
    usage, prices = tables(tmp_path)
    done = call("costs", "bill", "import", usage, "--prices", prices)
    assert (done.exit_code, done.stdout) == (0, "2 records added, 0 were there already; 2 prices\n")
    (_, _, sent_prices, _), (_, _, sent_usage, _) = api.asked
    assert sent_prices == {
        "prices": [
            {
                "sku": "SERVING_H100",
                "unit": "DBU",
                "amount": "0.07",
                "start": "2026-01-01T00:00:00Z",
                "end": None,
                "currency": "USD",
            }
        ]
    }
    (record,) = sent_usage["usage"]
    assert (record["record"], record["quantity"], record["endpoint"], record["type"]) == (
        "r-1",
        "42.5",
        "large",
        "ORIGINAL",
    )


def test_a_row_that_cannot_be_read_sends_nothing(api: FakeApi, tmp_path: Path) -> None:
    beside_up(api.url)
    for text, told in (
        ("{", "row 1"),
        ("[]", "JSON object"),
        (orjson.dumps(ROW | {"sku_name": ""}, default=str).decode(), "sku_name"),
    ):
        file = tmp_path / "usage.jsonl"
        file.write_text(text)
        refused = call("costs", "bill", "import", str(file))
        assert (refused.exit_code, told in refused.stderr) == (WRONG_INPUT, True), refused.stderr
    assert "nothing to import" in call("costs", "bill", "import").stderr
    assert not api.asked


def test_records_that_say_otherwise_than_before_are_told(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside_up(api.url)
    answer = {"added": 0, "known": 0, "contradicted": ["r-1"], "prices": 0}
    monkeypatch.setitem(ANSWERS, ("POST", BILL), (200, answer))
    told = call("costs", "bill", "import", tables(tmp_path)[0])
    assert told.exit_code == FAILED and "said otherwise" in told.stderr and "r-1" in told.stderr


def test_what_is_further_apart_than_it_may_be_is_an_exit_status(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up(api.url)
    shown = call("costs", "bill", "reconcile", "--model", "atlas-large=atlas", "--within", "1")
    assert shown.exit_code == 0 and "0.025" in shown.stdout
    assert "models=atlas-large%3Datlas" in api.queries[-1]
    apart = call("costs", "bill", "reconcile", "--within", "0.5")
    assert apart.exit_code == FAILED and "further apart than 0.5 %: atlas-large" in apart.stderr
    assert '"hour":"2026-11-22T09:00:00Z"' in call("costs", "bill", "reconcile", "--hours", "--json").stdout
    unknown = FOUND | {
        "endpoints": [FOUND["endpoints"][0] | {"delta": None, "billed": None}],
        "faults": ["sku X: none"],
    }
    monkeypatch.setitem(ANSWERS, ("GET", f"{BILL}/reconciliation"), (200, unknown))
    blind = call("costs", "bill", "reconcile")
    assert blind.exit_code == FAILED and "not known: atlas-large" in blind.stderr and "sku X: none" in blind.stderr
