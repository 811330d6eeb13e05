"""Law L5: a lease is debited when it is granted and durable before it is given; its usage never overspends; its rest returns
once, behind its last event or when nothing of it can be reported any more."""

import json
import random
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.admission import FieldBound, LeaseNeeded, Question
from engine.holds import seal_token
from engine.leases import LEASES_MAX, LeaseBook
from engine.leasing import Leased, narrower_limits
from engine.limits import ROOT
from engine.money import NANO
from engine.reasons import TRANSIENT, Binding, Reason
from tests.engine.bench import DOLLAR, KEY, MINUTE, SECOND, document, graduated
from tests.engine.desk_bench import DeskBench
from tests.engine.leased_life import LeasedLife
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of


def rich(dollars: str = "10", *documents: Any) -> DeskBench:
    bench = DeskBench(*documents)
    bench.open()
    bench.grant("l", dollars)
    return bench


def settled(bench: DeskBench) -> str:
    """How the newest event stands to what it names."""
    return str(json.loads(bench.partition.outputs.lines[-1][1])["settled"])


def live(seed: int) -> str | None:
    """What went wrong in a random life, in words; empty: nothing; None: it began beyond its limits."""
    life = LeasedLife(seed)
    if life.over > 0 or life.beyond_caps():
        return None
    return life.went_wrong()


@settings(max_examples=150)
@given(st.integers(0, 10**9))
def test_leased_usage_never_passes_the_overdraft_or_a_hard_cap(seed: int) -> None:
    """Any plan and lots, leases beside holds, gateways that die or close too early, owners that die, usage told late."""
    went_wrong = live(seed)
    assume(went_wrong is not None)
    assert went_wrong == ""


def test_without_the_debit_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: it finds what the debit at the grant is for."""
    monkeypatch.setattr(Leased, "mind", lambda _self, _ledger, _account: None)
    assert any(live(seed) for seed in range(300))


def test_a_lease_is_debited_when_granted_and_durable_before_it_is_given() -> None:
    """Debited from available, and from every cap on the path, when it is granted; in the log before it is given."""
    bench = rich()
    bench.scope("red")
    bench.cap("6", "team", scope="red")
    question = Question("acme", "red", "use", {"model": "x"}, bounds=(FieldBound(("units",), NANO),), hold_us=MINUTE)
    needed = bench.partition.lease(question, 3, 1, bench.now)
    assert isinstance(needed, LeaseNeeded)
    assert bench.account().leases.of == {}  # nobody has been told of it
    assert bench.wallet() == (10 * DOLLAR, 3 * DOLLAR)
    assert bench.refused("4", scope="red") is Reason.CAP_REACHED
    assert bench.lease_record(granted=[seal_token(KEY, needed.hold)]) == "leases"
    assert bench.wallet() == (10 * DOLLAR, 3 * DOLLAR)
    assert bench.refused("4", scope="red") is Reason.CAP_REACHED
    assert bench.refused("3", scope="red") is None


def test_usage_is_rated_by_the_token_alone_and_draws_on_the_lease() -> None:
    """Usage names its lease; rating needs no memory of it. An event is one of many: `holdfinal` says nothing here."""
    bench = rich()
    lease = bench.leased(5)
    assert bench.spend_held(lease, 1) == "rated"
    assert settled(bench) == "within"
    assert bench.wallet() == (9 * DOLLAR, 4 * DOLLAR)
    bench.spend_held(lease, "0.5", final=False)
    assert bench.wallet() == (8_500_000_000_000, 3_500_000_000_000)
    bench.spend_held(lease, 4)  # half a dollar more than it has left
    assert settled(bench) == "over_hold"
    assert bench.wallet() == (4_500_000_000_000, 0)
    bench.wait(10 * MINUTE)
    assert bench.spend_held(lease, 1) == "rated"
    assert settled(bench) == "late"


def test_it_is_rated_as_of_its_grant() -> None:
    """Ceiling prices: a new version does not make what was granted dearer."""
    bench = rich("10", document(), document(x=graduated((None, "9"), model="x")))
    bench.publish(2, bench.now + 6 * MINUTE)
    bench.wait(5 * MINUTE + 30 * SECOND)
    lease = bench.leased(5)
    assert lease.valid_until_us - lease.admitted_us == 30 * SECOND  # no lease reaches beyond its segment
    bench.wait(MINUTE)
    bench.spend_held(lease, 5)
    assert bench.wallet()[0] == 5 * DOLLAR
    again = bench.extend_lease(lease, 1)
    assert again.reason is Reason.HOLD_NOT_OPEN  # it has expired


def test_narrower_caps_go_to_the_owner_and_usage_below_the_lease_counts_where_it_happened() -> None:
    """On one scope path; narrower caps are told to the holder, and know what was used of the lease."""
    bench = rich()
    for scope in ("red", "red/ann", "red/bob", "red/cid", "red/dot"):
        bench.scope(scope)
    bench.cap("2", "ann", scope="red/ann")
    bench.cap("2", "bob", scope="red/bob", hard=False)
    bench.scope("red/cid", standing="suspended")
    bench.command("set_rate_limit", limit="slow", scope="red/dot", per_minute=1)
    assert narrower_limits(bench.account(), "red") == ["red/ann", "red/cid", "red/dot"]
    lease = bench.leased(5, scope="red")
    bench.spend_held(lease, 1, scope="red/bob")
    bench.spend_held(lease, 1, scope="blue")  # elsewhere: it counts where the lease was granted
    spends = {name: sum(scope.spend.values()) for name, scope in bench.account().scopes.items() if name != ROOT}
    assert spends == {"red": 2 * DOLLAR, "red/ann": 0, "red/bob": DOLLAR, "red/cid": 0, "red/dot": 0}


@pytest.mark.parametrize(
    ("dollars", "wanted", "least", "granted"),
    [
        ("100", 10, 1, 10),
        ("10", 10, 1, 5),
        ("10", 8, 1, 4),
        ("10", 8, 4, 4),
        ("10", 8, 5, 5),
        ("10", 8, 6, 0),
        ("1", 8, 1, 0),
    ],
)
def test_leases_shrink_near_a_limit_and_there_are_none_below_the_floor(
    dollars: str, wanted: int, least: int, granted: int
) -> None:
    """Smaller near a cap, none below a floor: strict, while a single request still runs."""
    bench = rich(dollars)
    decision = bench.lease(wanted, least=least)
    assert (0 if decision.hold is None else decision.hold.requests) == granted
    if not granted:
        assert decision.reason is Reason.STRICT
        assert decision.binding is not None
        assert decision.binding.kind == "wallet"
        assert bench.wallet()[1] == 0
        assert bench.refused("1") is None


def test_no_sum_of_gateways_gets_more_than_there_is() -> None:
    """Each finds at least half of what is left; then requests are asked for one by one."""
    bench = rich("100")
    sizes = []
    while (decision := bench.lease(64)).hold is not None:
        sizes.append(decision.hold.requests)
    assert sizes == [32, 32, 16, 8, 4, 4, 2, 1]
    assert decision.reason is Reason.STRICT
    assert bench.wallet() == (100 * DOLLAR, 99 * DOLLAR)


def test_the_rest_returns_behind_the_last_event() -> None:
    """`close(lease, total)`: what was spooled is still covered when it comes, and the rest is free behind it, once."""
    bench = rich()
    lease = bench.leased(5)
    bench.spend_held(lease, 1)
    bench.close_lease(lease, 2)
    assert bench.wallet() == (9 * DOLLAR, 4 * DOLLAR)  # one event is still to come
    assert bench.extend_lease(lease, 1).reason is Reason.HOLD_NOT_OPEN
    bench.spend_held(lease, 2)
    assert settled(bench) == "within"
    assert bench.wallet() == (7 * DOLLAR, 0)
    bench.close_lease(lease, 9)  # the first word stands
    bench.spend_held(lease, 1)
    assert settled(bench) == "over_hold"
    assert bench.wallet() == (6 * DOLLAR, 0)
    held = bench.hold_for("6")
    bench.close_lease(lease, 0)
    assert bench.wallet() == (6 * DOLLAR, 6 * DOLLAR)
    bench.spend_held(held, 6)
    assert bench.debt() == 0


def test_a_lease_that_nobody_closes_ends_once_nothing_of_it_can_be_reported() -> None:
    """Else after report_delay, by log time."""
    bench = rich()
    lease = bench.leased(5)
    bench.wait(lease.report_until_us - bench.now)
    assert bench.wallet() == (10 * DOLLAR, 5 * DOLLAR)
    assert bench.partition.next_wake_us() == lease.report_until_us + 1
    bench.wait(SECOND)
    assert bench.wallet() == (10 * DOLLAR, 0)
    assert bench.account().leases.of == {}


def test_a_successor_holds_the_same_leases_to_the_nano_unit() -> None:
    """Across crash and takeover: no wait, and nothing withheld, as each lease is in the log."""
    bench = rich()
    lease = bench.leased(5)
    bench.spend_held(lease, "0.5")
    bench.take_over()
    assert bench.wallet() == (9_500_000_000_000, 4_500_000_000_000)
    assert bench.refused("5.1") is Reason.CREDIT_DEPLETED
    assert bench.partition.desk.release(bench.hold_for("5"))
    grown = bench.extend_lease(lease, 1)
    assert grown.hold is not None
    assert (grown.hold.id, grown.hold.requests, grown.price) == (lease.id, 6, DOLLAR)
    bench.spend_held(lease, 1)  # the old token still settles
    bench.close_lease(grown.hold, 2)
    assert bench.wallet() == (8_500_000_000_000, 0)


def test_what_an_earlier_owner_decided_but_did_not_write_was_never_given() -> None:
    """A record of a lower epoch behind a new owner's is void."""
    bench = rich()
    question = Question("acme", ROOT, "use", {"model": "x"}, bounds=(FieldBound(("units",), NANO),), hold_us=MINUTE)
    needed = bench.partition.lease(question, 5, 1, bench.now)
    assert isinstance(needed, LeaseNeeded)
    bench.take_over()
    late = {"kind": "leases", "epoch": bench.epoch - 1, "granted": [seal_token(KEY, needed.hold)], "closed": []}
    assert bench.control(late) == "void"
    assert bench.wallet() == (10 * DOLLAR, 0)


def test_an_extension_is_a_new_admission_of_the_same_requests() -> None:
    """Renewal and extension are new admissions: they shrink, and are refused, as grants are."""
    bench = rich()
    lease = bench.leased(2)
    grown = bench.extend_lease(lease, 8, hold_us=5 * MINUTE)
    assert grown.hold is not None
    assert (grown.hold.requests, grown.hold.bounds[0].quantity, grown.price) == (6, 6 * NANO, 4 * DOLLAR)
    assert grown.hold.valid_until_us > lease.valid_until_us
    assert bench.wallet() == (10 * DOLLAR, 6 * DOLLAR)
    assert bench.extend_lease(lease, 8, least=3).reason is Reason.STRICT
    only_time = bench.extend_lease(lease, 0, hold_us=9 * MINUTE)
    assert only_time.hold is not None
    assert only_time.hold.requests == 6
    bench.scope("", standing="suspended")
    assert bench.extend_lease(lease, 1).reason is Reason.SUSPENDED


def test_a_record_that_was_written_twice_grants_once() -> None:
    """The owner writes again what the log may not have taken."""
    bench = rich()
    lease = bench.leased(4)
    grown = bench.extend_lease(lease, 1).hold
    assert grown is not None
    bench.spend_held(lease, 2)
    for token in (seal_token(KEY, lease), seal_token(KEY, grown)):
        bench.lease_record(granted=[token])
    assert bench.wallet() == (8 * DOLLAR, 3 * DOLLAR)
    bench.close_lease(lease, 1)
    bench.lease_record(granted=[seal_token(KEY, grown)])
    assert bench.wallet() == (8 * DOLLAR, 0)
    bench.wait(10 * MINUTE)
    bench.lease_record(granted=[seal_token(KEY, grown)])
    assert bench.wallet() == (8 * DOLLAR, 0)


def test_an_extension_that_reaches_the_log_behind_the_end_of_its_lease_is_none() -> None:
    """What was used of it is forgotten by then: extended, it would be granted anew, and held beside what it has spent."""
    bench = rich()
    lease = bench.leased(4)
    needed = bench.partition.extend_lease(lease, 1, 1, 9 * MINUTE, bench.now)
    assert isinstance(needed, LeaseNeeded)
    bench.spend_held(lease, 4)
    bench.wait(lease.report_until_us + SECOND - bench.now)  # the log was away meanwhile
    assert bench.wallet() == (6 * DOLLAR, 0)
    assert needed.hold.report_until_us > bench.now
    bench.lease_record(granted=[seal_token(KEY, needed.hold)])
    assert bench.wallet() == (6 * DOLLAR, 0)
    assert bench.account().leases.of == {}
    assert bench.partition.lease_terms(needed.hold) is None
    told = bench.partition.lease_over(needed.hold, bench.now)
    assert told is not None
    assert (told.reason, told.hold) == (Reason.HOLD_NOT_OPEN, None)
    bench.take_over()  # and so does whoever folds the log again
    assert bench.wallet() == (6 * DOLLAR, 0)


def test_an_extension_that_reaches_the_log_behind_a_close_is_none() -> None:
    """Its holder decides nothing more: what is on its way is covered as long as it was, and no longer."""
    bench = rich()
    lease = bench.leased(4)
    needed = bench.partition.extend_lease(lease, 1, 1, 9 * MINUTE, bench.now)
    assert isinstance(needed, LeaseNeeded)
    bench.close_lease(lease, 1)
    assert bench.wallet() == (10 * DOLLAR, 4 * DOLLAR)
    bench.lease_record(granted=[seal_token(KEY, needed.hold)])
    assert bench.wallet() == (10 * DOLLAR, 4 * DOLLAR)
    assert bench.account().leases.of[lease.id].hold == lease
    told = bench.partition.lease_over(needed.hold, bench.now)
    assert told is not None
    assert told.reason is Reason.HOLD_NOT_OPEN
    assert bench.partition.lease_over(lease, bench.now) is None  # the grant itself was one
    bench.spend_held(lease, 1)
    assert bench.wallet() == (9 * DOLLAR, 0)


def refusing(bench: DeskBench) -> list[tuple[Reason, Any]]:
    """What makes a lease be refused, in the order of precedence."""

    def many() -> None:
        bench.account().leases.of |= {
            str(number): next(iter(bench.account().leases.of.values())) for number in range(LEASES_MAX)
        }

    return [
        (Reason.SUSPENDED, lambda: bench.scope("red", standing="suspended")),
        (Reason.TOO_MANY_LEASES, many),
        (Reason.OVER_CEILING, lambda: bench.cap("0.5", "each", window="request", currency=None, meter="units")),
        (Reason.CREDIT_DEPLETED, lambda: bench.use(10)),
        (Reason.STRICT, lambda: bench.command("set_rate_limit", limit="slow", scope="red", per_minute=1)),
    ]


def test_refusals_come_in_one_order_and_say_what_binds() -> None:
    """Reasons with a fixed precedence, transient ones marked."""
    for place in range(len(refusing(rich()))):
        bench = rich()
        bench.scope("red")
        bench.leased(1)
        causes = refusing(bench)
        for _, cause in reversed(causes[place:]):
            cause()
        assert bench.lease(1, scope="red").reason is causes[place][0], causes[place]
    order = list(Reason)
    assert [order.index(reason) for reason, _ in causes] == sorted(order.index(reason) for reason, _ in causes)
    assert {Reason.TOO_MANY_LEASES, Reason.STRICT} <= TRANSIENT


def test_a_limit_that_binds_each_request_at_its_own_moment_leaves_no_lease() -> None:
    """A rate, and a ceiling on the price of one request: the owner alone can keep them."""
    limits: list[tuple[str, dict[str, Any], Binding]] = [
        ("set_rate_limit", {"limit": "slow", "per_minute": 600}, Binding("rate", "", "slow", None, None)),
        ("cap", {}, Binding("cap", "", "each", None, None)),
    ]
    for kind, fields, binding in limits:
        bench = rich()
        if kind == "cap":
            bench.cap("5", "each", window="request")
        else:
            bench.command(kind, **fields)
        decision = bench.lease(2)
        assert (decision.reason, decision.binding) == (Reason.STRICT, binding)
        assert bench.refused("1") is None


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        ({"model": "unheard"}, Reason.MODEL_NOT_ENTITLED),
        ({"bounds": ()}, Reason.UNBOUNDED),
        ({"type": "unheard"}, Reason.NO_METER),
        ({"scope": "unheard"}, Reason.UNKNOWN_SCOPE),
    ],
)
def test_a_lease_is_of_what_can_be_bounded_and_sold(question: dict[str, Any], reason: Reason) -> None:
    """As a hold is."""
    assert rich().lease(2, **question).reason is reason


def test_a_lease_of_nobody_is_refused() -> None:
    """As a check of nobody is, and an extension."""
    bench = rich()
    lease = bench.leased(1)
    question = Question("nobody", type="use", data={"model": "x"}, hold_us=MINUTE)
    assert bench.lease_for(question, 1).reason is Reason.UNKNOWN_ACCOUNT
    bench.take_over()
    assert bench.extend_lease(lease, 1).reason is None
    assert DeskBench().extend_lease(lease, 1).reason is Reason.UNKNOWN_ACCOUNT


def test_a_stream_counts_once_in_a_lease() -> None:
    """An event that takes the place of an earlier one is the same event: it draws the difference."""
    book, bench = LeaseBook(), rich()
    lease = bench.leased(3)
    book.put(lease, bench.now)
    book.draw(lease, {"x": NANO}, 1, bench.now)
    book.draw(lease, {"x": NANO}, 0, bench.now)
    assert (book.of[lease.id].rated, book.of[lease.id].left) == (1, (NANO,))


@pytest.mark.parametrize("seed", range(6))
def test_the_oracle_makes_the_same_money_of_it(seed: int) -> None:
    """Where usage of a lease lies, and that nothing else about leases moves money, is said twice."""
    life = LeasedLife(seed)
    for _ in range(41):
        life.step()
    life.settle_all()
    bench = life.bench
    assert bench.lease_record(granted=["no token"]) == "dead_lettered.bad_control"
    assert bench.lease_record(closed=[("acme", "0.1.1", -1)]) == "dead_lettered.bad_control"
    assert bench.lease_record(closed=[("nobody", "0.1.1", 1)] * 101) == "dead_lettered.bad_control"
    assert bench.lease_record(closed=[("nobody", "0.1.1", 1)]) == "leases"
    assert_the_same(bench, oracle_of(bench), f"seed {seed}")


@settings(max_examples=30)
@given(st.integers(0, 10**9))
def test_state_with_leases_is_the_same_however_it_is_cut(seed: int) -> None:
    """D4 holds for leases: replayed, frozen and thawed at any moment, byte by byte."""
    life = LeasedLife(seed)
    source = random.Random(seed)
    for _ in range(25):
        life.step()
    bench = life.bench
    again = bench.fresh()
    for record in bench.log:
        again.apply(*record)
        if source.random() < 0.3:
            again.freeze_idle(0, 10)
    assert again.state_bytes() == bench.replay().state_bytes()
