"""The margin table of a run: what does not add up is said."""

from io import StringIO

from msgspec.structs import replace
from rich.console import Console

from actors.margin import Answer
from engine.cost.margin import Key, Margin
from engine.cost.window import Bucket
from loadtest.margin_table import CENT, CUSTOMERS_SHOWN, cents, charges, show, summed
from loadtest.oracle.accounts import Rated

DOLLAR = 100 * CENT


def row(account: str, model: str, revenue: int, cost: int, without_cost: int = 0) -> tuple[Key, Margin]:
    return Key(0, account, model, "", "", "USD"), Margin(revenue, cost, 1, without_cost)


def answer(*rows: tuple[Key, Margin], idle: int) -> Answer:
    direct = sum(sums.known_cost for _, sums in rows)
    return Answer([*rows], {("USD", Bucket.DIRECT): direct, ("USD", Bucket.HARD_IDLE): idle}, 0, 0)


ROWS = [row("acme", "large", 9 * DOLLAR, 2 * DOLLAR), row("acme", "mini", 1, 2), row("zen", "mini", 5, 1)]
FOUND = answer(*ROWS, idle=7)
BILL = 2 * DOLLAR + 10


def test_a_run_that_adds_up_has_nothing_to_say() -> None:
    earned = summed(FOUND, {"direct": 2 * DOLLAR + 3, "hard_idle": 7}, FOUND.rows, BILL)
    assert earned.wrong(9 * DOLLAR + 6) == []
    assert [(key.account, each.revenue, each.known_cost, each.requests) for key, each in earned.by_customer] == [
        ("acme", 9 * DOLLAR + 1, 2 * DOLLAR + 2, 2),
        ("zen", 5, 1, 1),
    ]
    assert [(key.model, each.revenue) for key, each in earned.by_model] == [("large", 9 * DOLLAR), ("mini", 6)]


def test_one_pico_that_is_missing_is_told_where_it_is_missing() -> None:
    rows = {"direct": 2 * DOLLAR + 3, "hard_idle": 7}
    assert any("the fleet's bill" in each for each in summed(FOUND, rows, FOUND.rows, BILL + 1).wrong(9 * DOLLAR + 6))
    assert any(
        "Postgres" in each for each in summed(FOUND, rows | {"direct": 1}, FOUND.rows, BILL).wrong(9 * DOLLAR + 6)
    )
    assert any("the oracle charges" in each for each in summed(FOUND, rows, FOUND.rows, BILL).wrong(9 * DOLLAR))
    lost = replace(FOUND, rows=[*ROWS[:2], row("zen", "mini", 5, 0, without_cost=1)])
    (requests, unknown) = summed(lost, rows, lost.rows, BILL).wrong(9 * DOLLAR + 6)
    assert "windows say of direct cost" in requests
    assert "without a known cost" in unknown
    assert any(
        "not what the topics come to" in each for each in summed(FOUND, rows, ROWS[1:], BILL).wrong(9 * DOLLAR + 6)
    )


def test_the_charges_are_those_of_all_prices() -> None:
    assert charges([Rated("a", "s", "1", {"p": (1, 5), "q": (2, -2)}), Rated("a", "s", "2", {})]) == 3


def test_the_table_has_models_customers_and_the_rest_of_the_bill() -> None:
    many = [row(f"c-{number}", "mini", DOLLAR, 0, int(number == 0)) for number in range(CUSTOMERS_SHOWN + 2)]
    output = StringIO()
    show(Console(file=output, width=120), summed(answer(*ROWS, *many, idle=7), {}, [], BILL))
    text = output.getvalue()
    for part in ("on large", "of acme", "4 other customers", "GPUs: hard_idle", "GPUs: the bill", "unknown"):
        assert part in text


def test_money_for_a_person_has_two_digits() -> None:
    assert (cents(1_234 * DOLLAR + 5 * CENT), cents(CENT - 1), cents(-1)) == ("1,234.05", "0.00", "-0.01")
