"""The load's records, made beforehand."""

import orjson

from config.catalogue import load_file
from engine.catalog import document_json
from loadtest.bench.feeder import Order, rendered
from loadtest.bench.stage import CATALOGUE_FILE
from loadtest.drive import EVENT_LAG_US
from loadtest.workload import SECOND_US, Shape, cloud_time

CATALOGUE = orjson.loads(document_json(load_file(CATALOGUE_FILE)))
START_US = 1_788_264_000 * SECOND_US


def test_an_order_makes_the_same_workload_anywhere() -> None:
    order = Order(7, 300, 20, 2.0, "step", Shape(hot_share=0.3))
    first, second = (rendered(order.workload(CATALOGUE, 4), START_US) for _ in range(2))
    assert [send.render(0) for send in first] == [send.render(0) for send in second]
    assert len(first) > 300


def test_an_event_has_the_time_at_which_it_is_to_be_sent() -> None:
    order = Order(7, 300, 20, 2.0, "step")
    sends = [send for send in rendered(order.workload(CATALOGUE, 4), START_US) if send.kind == "event"]
    times = {
        cloud_time(START_US + round(send.at_s * SECOND_US) - EVENT_LAG_US): orjson.loads(send.render(0) or b"{}")[
            "time"
        ]
        for send in sends
    }
    on_time = [due for due, stated in times.items() if due == stated]
    assert len(on_time) > 0.9 * len(times), "but for the few that tell of what lies back"
    assert all(stated <= due for due, stated in times.items())


def test_a_duplicate_keeps_the_bytes_of_its_original() -> None:
    sends = rendered(Order(7, 1_000, 20, 2.0, "step").workload(CATALOGUE, 4), START_US)
    values = [send.render(0) for send in sends if send.kind == "event"]
    doubles = [send.render(0) for send in sends if send.kind == "duplicate"]
    assert doubles
    assert sum(value in values for value in doubles) > 0.9 * len(doubles), "some are of events that are misaddressed"
