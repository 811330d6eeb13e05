"""Revenue and cost side by side."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import By, Cost, Margin, Revenue, margins

H = 5 * HOUR_US


def revenue(request: str, amount: int, account: str = "acme", currency: str = "USD") -> Revenue:
    return Revenue(account, request, H + 7, amount, currency, "m")


def cost(request: str, amount: int | None, account: str = "acme", hour: int = H, currency: str = "USD") -> Cost:
    return Cost(account, request, hour, amount, currency, "m", "chat")


def test_a_request_has_its_lines_and_its_executions() -> None:
    (row,) = margins(
        [revenue("a", 70), revenue("a", 30)], [cost("a", 20), cost("a", 5, hour=H + HOUR_US)], [By.REQUEST, By.HOUR]
    )
    assert (row.request, row.hour_us, row.revenue, row.cost, row.margin, row.permille) == (
        "a",
        H + HOUR_US,
        100,
        25,
        75,
        750,
    )


def test_what_is_not_known_leaves_no_margin() -> None:
    (row,) = margins([revenue("a", 100), revenue("b", 50)], [cost("a", 20)], [By.ACCOUNT])
    assert (row.revenue, row.known_cost, row.cost, row.margin, row.permille, row.without_cost) == (
        150,
        20,
        None,
        None,
        None,
        1,
    )
    (row,) = margins([revenue("a", 100)], [cost("a", 20), cost("a", None)], [])
    assert (row.cost, row.without_cost) == (None, 1)


def test_a_request_that_nobody_is_charged_for_still_costs() -> None:
    (row,) = margins([], [cost("a", 20)], [By.FEATURE])
    assert (row.feature, row.revenue, row.cost, row.margin, row.permille) == ("chat", 0, 20, -20, None)
    assert (row.requests, row.without_revenue) == (1, 1)


def test_the_same_id_of_another_account_is_another_request() -> None:
    rows = margins([revenue("a", 10, "acme"), revenue("a", 20, "zen")], [cost("a", 1, "zen")], [By.ACCOUNT])
    assert [(row.account, row.revenue, row.cost) for row in rows] == [("acme", 10, None), ("zen", 20, 1)]


def test_cost_in_another_currency_is_not_converted() -> None:
    (row,) = margins([revenue("a", 10, currency="EUR")], [cost("a", 1)], [])
    assert (row.currency, row.revenue, row.cost) == ("EUR", 10, None)
    (row,) = margins([revenue("a", 10)], [cost("a", 1), cost("a", 2, currency="EUR")], [])
    assert row.cost is None


def test_what_may_still_change_is_counted() -> None:
    late = Cost("acme", "a", H, 5, "USD", "m", settled=False)
    (row,) = margins([revenue("a", 10), revenue("b", 10)], [late, cost("b", 1)], [])
    assert (row.provisional, row.requests) == (1, 2)


@given(st.integers(0, 1 << 32).map(Random), st.lists(st.sampled_from(list(By)), unique=True))
def test_however_it_is_told_apart_the_sums_are_the_same(random: Random, by: list[By]) -> None:
    revenues = [revenue(f"r{random.randrange(9)}", random.randrange(100), random.choice("ab")) for _ in range(20)]
    costs = [cost(f"r{random.randrange(9)}", random.choice([None, 3, 5]), random.choice("ab")) for _ in range(20)]
    (whole,) = margins(revenues, costs, [])
    rows = margins(revenues, costs, by)
    for name in ("revenue", "known_cost", "requests", "without_cost", "without_revenue"):
        assert sum(getattr(row, name) for row in rows) == getattr(whole, name)
    assert whole.revenue == sum(each.amount for each in revenues)
    random.shuffle(revenues)
    random.shuffle(costs)
    assert margins(revenues, costs, by) == rows
    assert all(isinstance(row, Margin) for row in rows)
