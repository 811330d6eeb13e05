"""Law L1: usage that happened is rated, past any cap and on an empty wallet; limits bind checks, never rating."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.holds import Bound, Hold
from engine.money import NANO
from tests.engine.bench import DOLLAR, HOUR, MINUTE, START, Bench


def opened() -> Bench:
    bench = Bench()
    bench.open()
    return bench


@settings(max_examples=60)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=15), st.integers(1, 40), st.integers(1, 40))
def test_spend_goes_on_past_the_cap_and_the_wallet(units: list[int], cap: int, wallet: int) -> None:
    """Every event is charged in full: spend is what was used, and what the wallet did not hold is debt."""
    bench = opened()
    bench.cap(str(cap))
    bench.cap_rule(100)
    bench.grant("l", str(wallet))
    bench.balance_rule("0")
    assert {bench.use(count) for count in units} == {"rated"}
    used = sum(units) * DOLLAR
    assert bench.charges() == [count * DOLLAR for count in units]
    assert sum(bench.account().derive().spend.values()) == used
    assert bench.debt() == max(0, used - wallet * DOLLAR)
    assert bench.balance() == wallet * DOLLAR - used


def test_an_account_without_any_credit_is_rated() -> None:
    """No lot, no cap, no rule: everything is debt."""
    bench = opened()
    bench.use(7)
    assert (bench.charges(), bench.debt()) == ([7 * DOLLAR], 7 * DOLLAR)


def test_an_expired_lot_stops_no_usage() -> None:
    """After the last lot has gone, usage still moves tiers and makes debt."""
    bench = opened()
    bench.grant("l", "1000", expires_us=START + HOUR)
    bench.use(10, "tiered")
    bench.now = START + HOUR
    bench.use(10, "tiered")
    assert bench.charges() == [300 * DOLLAR, 400 * DOLLAR]
    assert bench.debt() == 400 * DOLLAR


def test_usage_beyond_the_cap_still_moves_the_tiers() -> None:
    """A cap does not make the units above it cheaper or invisible."""
    bench = opened()
    bench.cap("1")
    bench.cap_rule(100)
    bench.use(50, "tiered")
    bench.use(1, "tiered")
    assert bench.charges() == [1_900 * DOLLAR, 50 * DOLLAR]


def test_telling_of_a_cap_does_not_change_a_charge() -> None:
    """Two accounts with the same usage are charged alike, whether or not they have limits."""
    bare, limited = opened(), opened()
    limited.cap("10")
    limited.cap_rule(50)
    limited.balance_rule("-3")
    for bench in (bare, limited):
        for units in (3, 4, 5, 6):
            bench.use(units)
    assert bare.charges() == limited.charges()
    assert limited.told() and not bare.told()


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.booleans(), st.integers(0, 3)), max_size=15),
    st.integers(1, 20),
    st.integers(1, 3),
)
def test_whatever_has_become_of_a_hold_its_usage_is_rated_in_full(
    events: list[tuple[int, int, bool, int]], held: int, taken_over_at: int
) -> None:
    """Within, beyond, after its end, late, of a dead owner: the charge is the same as without any hold."""
    bench, bare = opened(), opened()
    for each in (bench, bare):
        each.command("set_scope", scope="", standing="suspended")
        each.cap("1")
    bench.owner(1)
    bench.slices(1, {"acme": {"x": held * NANO}}, linger_us=HOUR)
    holds: list[Hold] = [bench.hold(Bound(held * NANO, ("x",), ("x",)), number=number) for number in range(4)]
    for place, (number, units, final, wait) in enumerate(events):
        bench.now = bare.now = bench.now + wait * MINUTE
        if place == taken_over_at:
            bench.owner(2)
        assert bench.spend_held(holds[number], units, final=final) == "rated"
        assert bare.use(units) == "rated"
    assert bench.charges() == bare.charges()
    assert (bench.debt(), bench.balance()) == (bare.debt(), bare.balance())
    assert not bench.partition.outputs.dead_letters
