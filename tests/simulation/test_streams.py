"""Events of a seed become parts of streams: a few at a time of one id, in an order that is not always that of their seq."""

from random import Random

from engine.events import parse_usage
from tests.simulation.streams import PARTS, Streaming

EVENT = (
    b'{"specversion":"1.0","id":"one","source":"s","type":"llm.request","time":"2026-01-01T00:00:00Z","subject":"acme",'
    b'"data":{"input_tokens":5}}'
)


def test_of_one_id_there_are_a_few_whose_seq_mostly_grows() -> None:
    streaming = Streaming(Random(1))
    events = [parse_usage(streaming.part(lambda _: EVENT)(0) or b"") for _ in range(400)]
    plain = [event for event in events if event.seq is None]
    assert {event.id for event in plain} == {"one"} and 100 < len(plain) < 300
    seqs: dict[str, list[int]] = {}
    for event in events:
        if event.seq is not None:
            seqs.setdefault(event.id, []).append(event.seq)
    assert {len(of_one) for of_one in list(seqs.values())[:-1]} == {PARTS}
    assert any(of_one == sorted(set(of_one)) for of_one in seqs.values())
    assert any(of_one != sorted(of_one) for of_one in seqs.values()), "one that was overtaken"
    assert any(len(set(of_one)) < len(of_one) for of_one in seqs.values()), "one that says something else at a seq"


def test_what_is_made_is_the_same_at_every_call() -> None:
    part = Streaming(Random(2)).part(lambda _: EVENT)
    assert part(0) == part(1)
