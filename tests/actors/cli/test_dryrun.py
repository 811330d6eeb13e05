"""`tallygate catalogue dryrun`: what it needs, and how it tells what it found."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from actors import proofs
from actors.cli.terminal import WRONG_INPUT
from actors.dryrun import Customer, Draft, DryRun, Takings, Turn
from tests.actors.cli.calling import EXAMPLE, call

DOLLAR = 10**12
FOUND = [
    DryRun(
        0,
        0,
        9,
        [
            Customer("acme", "starter", "USD", Takings(10 * DOLLAR, 15 * DOLLAR + 1, 3, 3)),
            Customer("globex", "growth", "USD", Takings(4 * DOLLAR, DOLLAR, 2, 1)),
        ],
        [Turn("rated", "dead_lettered.no_price", 1, 7, "plan growth has no price for it")],
    ),
    DryRun(1, 0, 4, [Customer("initech", "growth", "USD", Takings(DOLLAR, DOLLAR, 1, 1))], []),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Draft]:
    """What the dry run was asked to try; it finds `FOUND`."""
    drafts: list[Draft] = []

    async def dry_run(_: object, __: object, ___: object, draft: Draft, ____: object) -> AsyncIterator[DryRun]:
        drafts.append(draft)
        for found in FOUND:
            yield found

    monkeypatch.setattr(proofs, "dry_run", dry_run)
    return drafts


def test_plans_customers_and_the_exact_total_are_told(asked: list[Draft]) -> None:
    result = call("catalogue", "dryrun", str(EXAMPLE), "--from", "1970-01-02T00:00:00Z", "--customers", "2")
    assert result.exit_code == 0, result.stderr
    (draft,) = asked
    assert (draft.from_us, draft.to_us, "starter" in draft.document.plans) == (86_400_000_000, None, True)
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if line.startswith("│")
    ]
    assert rows == [
        ["growth", "USD", "2", "3", "2", "5", "2", "-3"],
        ["starter", "USD", "1", "3", "3", "10", "15.000000000001", "5.000000000001"],
        ["acme", "starter", "USD", "3", "3", "10", "15.000000000001", "5.000000000001"],
        ["globex", "growth", "USD", "2", "1", "4", "1", "-3"],
    ]
    assert "Customers, 2 of 3: the largest differences" in result.stdout
    assert (
        "1 records of partition 0 are rated as published and dead_lettered.no_price under the draft; the first at offset "
        "7: plan growth has no price for it"
    ) in " ".join(result.stdout.split())
    assert result.stdout.splitlines()[-1] == (
        "total 15 USD as published, 17.000000000001 under the draft: difference 2.000000000001 (+13.33%)"
    )


def test_in_json_every_customer_has_a_line(asked: list[Draft]) -> None:
    lines = [orjson.loads(line) for line in call("catalogue", "dryrun", str(EXAMPLE), "--json").stdout.splitlines()]
    assert [line["customer"] for line in lines if "customer" in line] == ["acme", "globex", "initech"]
    plans = {line["plan"]: line for line in lines if "customers" in line}
    assert (plans["growth"]["customers"], plans["growth"]["difference"]) == (2, "-3")
    assert [line["records"] for line in lines if "outcome" in line] == [1]
    assert lines[-1] == {
        "total": "USD",
        "currency": "USD",
        "events": 6,
        "events_after": 5,
        "before": "15",
        "after": "17.000000000001",
        "difference": "2.000000000001",
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--from", "yesterday"), "--from: time 'yesterday' is not RFC 3339"),
        (("--from", "2026-02-01T00:00:00Z", "--to", "2026-02-01T00:00:00Z"), "is not after --from"),
        ((), "postgres.dsn is not set; set DATABASE_URL"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_read(options: tuple[Any, ...], told: str) -> None:
    result = call("catalogue", "dryrun", str(EXAMPLE), *options)
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert told in result.stderr
