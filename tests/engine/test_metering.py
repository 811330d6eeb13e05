"""What an event says by catalogue, contract and hold, and what cannot be told."""

import pytest

from engine.catalog import PriceBook, compile_catalogue
from engine.contract import Contract
from engine.events import parse_usage
from engine.holds import Bound, seal_token
from engine.limits import ROOT
from engine.metering import Metering, scopes_of
from engine.money import NANO
from engine.outcomes import DeadLetter
from tests.engine.bench import DAY, KEY, MINUTE, START, Bench, cloud_event, document

SOLD = Contract("UTC", 1, "plan")


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.open()
    return bench


def reading(*, published: bool = True) -> Metering:
    book = PriceBook()
    if published:
        book.publish(0, compile_catalogue(1, document()))
    return Metering(book, KEY)


@pytest.mark.parametrize(
    ("offset_us", "outcome"),
    [
        (5 * MINUTE, "rated"),
        (5 * MINUTE + 1, "dead_lettered.too_far_ahead"),
        (-(35 * DAY - 5 * MINUTE), "rated"),
        (-(35 * DAY - 5 * MINUTE) - 1, "dead_lettered.too_old"),
    ],
)
def test_event_time_stays_within_the_window(bench: Bench, offset_us: int, outcome: str) -> None:
    assert bench.use(1, at=START + offset_us) == outcome


def test_an_event_is_metered_where_its_hold_was_admitted() -> None:
    bench = Bench()
    bench.open()
    hold = bench.hold(Bound(10 * NANO, ("x",), ("x",)), at=START - DAY)
    event = parse_usage(cloud_event("e", START, data={"model": "x", "units": 3}, hold=seal_token(KEY, hold)))
    metering = reading()
    assert metering.hold_of("acme", event) == hold
    metered = metering.metered(SOLD, event, hold)
    assert (metered.time_us, metered.catalogue.version, metered.dimensions) == (START - DAY, 1, (("model",),))
    assert [(price.name, cell, quantity) for price, cell, quantity in metered.usages] == [("x", ("x",), 3 * NANO)]
    with pytest.raises(DeadLetter, match="hold of another account"):
        metering.hold_of("other", event)


def test_before_any_catalogue_there_is_no_meter() -> None:
    event = parse_usage(cloud_event("e", START, data={"model": "x", "units": 3}))
    with pytest.raises(DeadLetter, match="no catalogue has been published"):
        reading(published=False).metered(SOLD, event, None)


def test_an_event_lies_in_the_declared_scopes_of_its_path() -> None:
    event = parse_usage(cloud_event("e", START, data={"model": "x", "units": 3}, scope="team:a/ann/deeper"))
    assert scopes_of({ROOT, "team:a", "team:a/ann"}, event, None) == ("team:a", "team:a/ann")
    assert scopes_of({ROOT}, event, None) == ()
