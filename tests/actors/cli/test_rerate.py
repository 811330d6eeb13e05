"""`tallygate rerate`: a dry run over customers, kept as a file, and posted as it stands."""

import json
from pathlib import Path

from tests.actors.cli.calling import FakeApi, beside_up, call

DRY = ("rerate", "dryrun", "--version", "3", "--from", "2026-10-01T00:00:00Z")
PART = {"price": "output", "currency": "USD", "differences": [{"period": "2026-10-01T00:00:00Z", "difference": "-3"}]}


def test_a_dry_run_shows_each_difference_and_the_total_and_keeps_what_is_to_be_posted(api: FakeApi) -> None:
    beside_up(api.url)
    result = call(*DRY, "--out", "found.json", "--name", "wrong-october")
    assert result.exit_code == 0, result.output
    assert "total difference -3 USD, of 2 customers" in result.stdout
    assert "acme: fees cannot be rated again: bad_price" in result.stdout
    assert {method for method, *_ in api.asked} == {"GET"}
    kept = json.loads(Path("found.json").read_text())
    assert kept == {
        "rerate": "wrong-october",
        "version": 3,
        "since": "2026-10-01T00:00:00Z",
        "until": None,
        "parts": [{"account": "acme", **PART}],
    }


def test_only_customers_of_a_plan_or_those_named_are_looked_at(api: FakeApi) -> None:
    beside_up(api.url)
    assert "of 1 customers" in call(*DRY, "--plan", "pro").stdout
    assert "of 1 customers" in call(*DRY, "--account", "acme", "--price", "output").stdout
    assert "price=output" in api.queries[-1]


def test_what_was_found_is_posted_and_what_was_posted_before_is_passed_over(api: FakeApi) -> None:
    beside_up(api.url)
    parts = [{"account": name, **PART} for name in ("done", "acme", "busy")]
    found = {"rerate": "r", "version": 3, "since": "2026-10-01T00:00:00Z", "until": "2026-11-01T00:00:00Z"}
    Path("found.json").write_text(json.dumps({**found, "parts": parts}))
    result = call("rerate", "apply", "found.json", "--reason", "a wrong price")
    assert result.exit_code == 1
    assert "r: 1 posted, 1 posted before, 1 refused" in result.stdout
    assert "busy: output: The differences are others by now." in result.stderr
    _, path, body, _ = api.asked[1]
    assert (path, body) == (
        "/v1/customers/acme/rerates",
        {"rerate": "r", "version": 3, "from": "2026-10-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}
        | {**PART, "reason": "a wrong price"},
    )


def test_a_file_that_is_none_of_a_dry_run_is_refused(api: FakeApi) -> None:
    beside_up(api.url)
    Path("found.json").write_text("{}")
    assert call("rerate", "apply", "found.json", "--reason", "r").exit_code == 2
    assert api.asked == []
