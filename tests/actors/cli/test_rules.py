"""`tallygate rules`: what it asks, and what it shows."""

from typing import Any

import pytest

from tests.actors.cli.calling import FakeApi, asks_once, beside_up, call

ASKS = [
    (
        ("rules", "set", "acme", "low", "balance", "threshold=5", "clear=10", "--level", "critical"),
        (
            "PUT",
            "/v1/customers/acme/rules/low",
            {"on": {"measure": "balance", "threshold": "5", "clear": "10"}, "level": "critical"},
        ),
        "acme: rule low tells of balance threshold=5 clear=10, as critical (log 3/18)",
    ),
    (
        ("rules", "set", "acme", "low", "spike", "percent=300", "minimum=2", "bucket_s=3600"),
        (
            "PUT",
            "/v1/customers/acme/rules/low",
            {"on": {"measure": "spike", "percent": 300, "minimum": "2", "bucket_s": 3600}, "level": "warning"},
        ),
        "acme: rule low tells of spike percent=300 minimum=2 bucket_s=3600, as warning (log 3/18)",
    ),
    (
        ("rules", "remove", "acme", "low"),
        ("DELETE", "/v1/customers/acme/rules/low", {}),
        "acme: rule low is gone (log 3/18)",
    ),
]


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, arguments, asked, told)


@pytest.mark.parametrize("term", ["threshold", "percent=many"])
def test_a_term_that_cannot_be_read_asks_nothing(term: str, api: FakeApi) -> None:
    beside_up(api.url)
    result = call("rules", "set", "acme", "low", "balance", term)
    assert result.exit_code == 2
    assert term in result.stderr
    assert not api.asked


def test_rules_are_listed_with_what_they_look_at_and_where_they_are_active(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("rules", "list", "acme")
    assert result.exit_code == 0
    for text in ("low", "critical", "measure=balance threshold=5", "-"):
        assert text in result.stdout
