"""The report: one file that asks nobody for anything, with what was measured in it."""

import re
from typing import Any

import msgspec
import pytest

from loadtest.bench.page import page
from loadtest.bench.ramp import Step


def step(rate: float) -> dict[str, Any]:
    look = {"at_s": 0.5, "rated": 10, "lag": 3, "rss_mib": {"shard": 90.0}}
    made = Step(
        rate, rate, True, 0.0, 0, 3, {"p50": 20.0, "p99": 40.0}, {"shard": 0.5}, {"shard": 90.0}, [look],
        {"p50": 0.4}, [(50.0, 0.4)], [(50.0, 20.0)],
    )  # fmt: skip
    told: dict[str, Any] = msgspec.to_builtins(made)
    return told


@pytest.fixture
def figures() -> dict[str, Any]:
    return {
        "machine": {"cores": 2, "processor": "<b>x86</b>"},
        "began": "2026-11-28T00:00:00Z",
        "seconds": 1.0,
        "commands": {"one_shard": ["python", "-m", "loadtest.bench.one_shard"]},
        "parts": {
            "one_shard": {
                "saturation": {"ratio_per_core": 0.25},
                "ramp": {
                    "steps": [step(1_000), step(1_500)],
                    "saturation_per_s": 1_500,
                    "steps_with_checks": [step(300), step(450)],
                    "half": step(225),
                },
            }
        },
    }


def test_it_asks_no_other_machine_for_anything(figures: dict[str, Any]) -> None:
    made = page(figures)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*\s(?:src|href)=", made)
    assert "Plotly.newPlot" in made, "the plots are drawn"
    assert made.count("Plotly.newPlot(") >= 7


def test_it_names_machine_command_and_goals(figures: dict[str, Any]) -> None:
    made = page(figures)
    assert "python -m loadtest.bench.one_shard" in made
    assert "0.25" in made
    assert "class='missed'" in made
    assert "not measured" in made


def test_what_it_is_given_is_text_and_never_markup(figures: dict[str, Any]) -> None:
    assert "<b>x86</b>" not in page(figures)


def test_a_run_without_parts_still_says_so(figures: dict[str, Any]) -> None:
    assert "not measured" in page(figures | {"parts": {}})
