"""How large a lease may be, and what it holds while its record is on its way. The law: tests/laws/test_l5_leases.py."""

import pytest
from msgspec.structs import replace

from engine.admission import LeaseNeeded
from engine.holds import Bound, Hold, seal_token
from engine.leasing import Leased, at_most_half, narrower_limits, only_owner_keeps, per_request, times
from engine.money import NANO
from engine.outlook import Ledger
from engine.reasons import Reason
from tests.engine.bench import DOLLAR, KEY, MINUTE, SECOND
from tests.engine.desk_bench import DeskBench


@pytest.mark.parametrize(
    ("requests", "least", "free"), [(8, 1, 5), (8, 3, 7), (5, 4, 9), (1, 1, 2), (10**6, 1, 10**5), (7, 2, 4)]
)
def test_it_takes_at_most_half_of_what_is_free(requests: int, least: int, free: int) -> None:
    tried: list[int] = []

    def is_admitted(number: int) -> bool:
        tried.append(number)
        return number <= free

    number = at_most_half(requests, least, is_admitted)
    assert number == next((each // 2 for each in tried if each <= free), 0)
    assert number == 0 or least <= number <= requests
    assert number > 0 or tried[-1] == 2 * least  # the least was asked for, and did not fit
    assert len(tried) <= 22


def test_the_least_may_be_more_than_is_asked_for() -> None:
    assert at_most_half(3, 4, lambda _: True) == 0


def test_a_request_is_a_part_of_its_lease() -> None:
    one = (Bound(3, ("x", "y"), ("x",)), Bound(1, ("z",), ("z",)))
    lease = Hold("acme", "", 0, 1, 1, 0, 1, 0, 0, 0, times(one, 7), 7)
    assert [bound.quantity for bound in lease.bounds] == [21, 7]
    assert per_request(lease) == one
    assert times(one, 0) == ()


def test_an_extension_on_its_way_counts_beside_what_was_drawn_meanwhile() -> None:
    bench = DeskBench()
    bench.open()
    bench.grant("l", "20")
    lease = bench.leased(4)
    leased, ledger = Leased(), Ledger()
    ledger.face(bench.account(), bench.partition._book, bench.now)
    grown = replace(lease, requests=6, bounds=(Bound(6 * NANO, ("x",), ("x",)),), extends=True)

    def held() -> int:
        leased.mind(ledger, bench.account())
        return ledger.look(held=False).balance - ledger.look().balance

    assert held() == 4 * DOLLAR
    leased.begin(grown)
    assert held() == 6 * DOLLAR
    bench.spend_held(lease, 1)
    assert held() == 5 * DOLLAR
    leased.read(lease)  # an earlier record of it: the extension is still to come
    assert held() == 5 * DOLLAR
    assert leased.open_one(bench.account(), lease.id) == grown
    bench.account().leases.put(grown, bench.now)
    leased.read(grown)
    assert held() == 5 * DOLLAR
    assert leased.count(bench.account()) == 1


@pytest.mark.parametrize("over", ["ended", "closed"])
def test_an_extension_on_its_way_to_a_lease_that_is_over_holds_nothing(over: str) -> None:
    bench = DeskBench()
    bench.open()
    bench.grant("l", "20")
    lease = bench.leased(4)
    needed = bench.partition.extend_lease(lease, 3, 1, 9 * MINUTE, bench.now)
    assert isinstance(needed, LeaseNeeded)
    assert bench.wallet() == (20 * DOLLAR, 7 * DOLLAR)
    if over == "ended":
        bench.wait(lease.report_until_us + SECOND - bench.now)
    else:
        bench.close_lease(lease, 0)
    assert bench.wallet() == (20 * DOLLAR, 0)
    assert bench.extend_lease(lease, 1).reason is Reason.HOLD_NOT_OPEN
    bench.lease_record(granted=[seal_token(KEY, needed.hold)])
    assert bench.wallet() == (20 * DOLLAR, 0)


def test_the_owner_keeps_what_binds_each_request_and_the_holder_hears_of_narrower_limits() -> None:
    bench = DeskBench()
    bench.open()
    for scope in ("red", "red/ann", "redder"):
        bench.scope(scope)
    bench.command("set_rate_limit", limit="slow", scope="red/ann", per_minute=1)
    account = bench.account()
    assert only_owner_keeps(account, "red") is None
    found = only_owner_keeps(account, "red/ann/x")
    assert found is not None
    assert (found.kind, found.name) == ("rate", "slow")
    assert narrower_limits(account, "") == ["red/ann"]
    assert narrower_limits(account, "redder") == narrower_limits(account, "red/ann") == []
