"""The dashboard asks for metrics that are exported, and for all of them; alarms for none that is not."""

import json
import re
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

import config
from actors.cost_store import CostStatus, CostSum
from actors.keys import KeyScope
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage

DASHBOARD = Path(config.__file__).parent / "grafana-dashboard.json"
ALARMS = Path(config.__file__).parents[1] / "docs" / "running.md"
# The text format's own endings, of counters and histograms.
ENDING = re.compile(r"_(total|bucket|created|sum|count)$")


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_bytes())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


async def exported() -> set[str]:
    """Names as a query has them."""
    stage = Stage()
    client = Client(stage.app, stage.keys.add(KeyScope.READ))
    stage.costs.partitions = [CostStatus(0, 1, 1, 7, 1, 0, "a")]
    stage.costs.rows = [CostSum("", "m", "", 0, "direct", "USD", 5, 1, 1, 1, 1, 1)]
    await client.get("/v1/plans")  # or no request would have been counted
    text = (await client.get("/metrics")).body.decode()
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


async def test_every_metric_that_it_asks_for_is_exported() -> None:
    asked = {name for expression in expressions() for name in re.findall(r"\btallygate_\w+", expression)}
    assert asked
    assert asked <= await exported()


async def test_every_metric_that_is_exported_has_a_panel() -> None:
    asked = {ENDING.sub("", name) for each in expressions() for name in re.findall(r"\btallygate_\w+", each)}
    assert {ENDING.sub("", name) for name in await exported()} == asked


async def test_every_metric_that_wakes_somebody_is_exported() -> None:
    cells = re.findall(r"\| `([^`]*)`", ALARMS.read_text())
    asked = {name for cell in cells for name in re.findall(r"\btallygate_\w+", cell)}
    assert len(asked) > 8
    assert asked <= await exported()


def test_counters_are_asked_for_their_rate() -> None:
    for expression in expressions():
        for name in re.findall(r"\btallygate_\w+(?:_total|_bucket)\b", expression):
            assert f"rate({name}[$__rate_interval])" in expression


def test_panels_lie_beside_each_other_and_use_the_chosen_source() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert {panel["datasource"]["uid"] for panel in panels()} == {"${datasource}"}
    assert [variable["name"] for variable in dashboard()["templating"]["list"]] == ["datasource"]
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
