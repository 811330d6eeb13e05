"""What the patterns read: the same events, at the price of the example catalogue."""

import orjson

from loadtest.patterns.pattern import Use, read
from loadtest.probes import COST_PICO, customers


def test_an_event_costs_what_the_example_catalogue_says() -> None:
    (customer,) = customers("one", 1, 4)
    assert read(customer.use(10**15).value) == Use(customer.account, "bench", "e1", COST_PICO)


def test_what_is_no_usage_event_is_none() -> None:
    (customer,) = customers("one", 1, 4)
    event = orjson.loads(customer.use(10**15).value or b"")
    for value in (None, b"", b"TGC1" + b"\xff" * 40, b"{", orjson.dumps(event | {"type": "other"}), b"[1]"):
        assert read(value) is None
