"""Customers of the bench: what the engine makes of their events is what they say, and nothing else counts as right."""

import orjson
import pytest

from actors.door_wire import AsOf, Checked, WalletView
from actors.ports import Outgoing
from config.catalogue import load_file
from engine.catalog import document_json, load_catalogue
from engine.events import CatalogueMarker, seal
from engine.partition import Partition
from engine.placement import partition_for
from loadtest.deployment import CATALOGUE_FILE
from loadtest.probes import COST_PICO, Customer, customers, is_right, probes

KEY = b"a control key of thirty-two bytes"
WALL_US = 1_750_000_000_000_000


def folded(customer: Customer, events: int) -> Partition:
    """Its commands and events, by the real engine over the example catalogue."""
    library = {1: load_catalogue(1, document_json(load_file(CATALOGUE_FILE)))}
    fold = Partition(customer.partition, 4, "usage", KEY, library)
    bodies = [b'{"kind":"catalogue","version":1,"effective_us":0}', *map(orjson.dumps, customer.commands())]
    assert orjson.loads(bodies[0])["kind"] == CatalogueMarker.__struct_config__.tag
    values = [seal(KEY, "usage", customer.partition, body) for body in bodies]
    uses: list[Outgoing] = [customer.use(WALL_US) for _ in range(events)]
    for offset, value in enumerate([*values, *(each.value or b"" for each in uses)]):
        fold.apply(offset, WALL_US // 1000, customer.account.encode(), value)
    return fold


@pytest.mark.parametrize("number", [0, 1])
def test_what_a_customer_must_have_is_what_the_engine_makes_of_its_events(number: int) -> None:
    customer = probes(4, 2)[number]
    wallet = folded(customer, 3).wallet(customer.account, WALL_US)
    assert wallet is not None
    assert (wallet.booked, customer.sent) == (customer.booked, 3)
    assert (customer.booked > 0) == (number == 1), "one of two is in debt after its first event"


def test_every_partition_has_its_probes_where_its_key_leads() -> None:
    found = probes(8, 3)
    assert [probe.partition for probe in found] == [number for number in range(8) for _ in range(3)]
    for customer in (*found, *customers("cus", 50, 8)):
        assert partition_for(customer.account.encode(), 8) == customer.partition


def answer(booked: str, *, allowed: bool, epoch: int = 2) -> Checked:
    return Checked(allowed, AsOf(0, epoch, 10, WALL_US, 0), wallet=WalletView("USD", booked, "0", booked, "0"))


def test_only_the_exact_balance_of_a_new_owner_is_right() -> None:
    customer = Customer("a", 0, 5 * COST_PICO, sent=2)
    good = answer("0.000300000000", allowed=True)
    assert is_right(customer, good, 1)
    assert not is_right(customer, None, 1)
    assert not is_right(customer, good, 2), "the old owner's"
    assert not is_right(customer, answer("0.000400000000", allowed=True), 1), "an event is missing"
    assert not is_right(customer, answer("0.000300000000", allowed=False), 1)
    customer.sent = 6
    assert is_right(customer, answer("-0.000100000000", allowed=False), 1)
