"""Law A2: charges, alerts and refusals carry what produced them."""

import json
import random
from fractions import Fraction

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.explain import explained
from engine.admission import Decision, Question
from engine.catalog import compile_catalogue
from engine.outcomes import RatedLine
from tests.engine.bench import HOUR, MINUTE, Bench
from tests.engine.held_life import HeldLife
from tests.laws.test_r1_shared_tiers import sharing

PICO = Fraction(1, 10**12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(("alone", "graduated", "volume")))
def test_a_line_and_the_price_that_it_names_tell_the_amount(seed: int, shared: str) -> None:
    """Version, tier lines, own and re-pricing: the amount follows from these, but for what rounding leaves to the period."""
    source = random.Random(seed)
    bench = Bench() if shared == "alone" else Bench(sharing(shared))
    bench.open()
    bench.grant_units("given", "x", "9")
    for _ in range(12):
        bench.now += source.randrange(HOUR)
        bench.use(source.choice((1, 7, "2.5", 60)), source.choice(("x", "y", "third", "tiered")))
    sold = bench.documents[1].plans["plan"].prices
    catalogue = compile_catalogue(1, bench.documents[1])
    for _, raw in bench.partition.outputs.lines:
        line = msgspec.json.decode(raw, type=RatedLine)
        price = catalogue.plans["plan"].prices[line.price]
        told = explained(line, sold[line.price], price, catalogue.meters[price.meter])
        own, repricing, beyond = (Fraction(text) for text in (told.own, told.repricing, told.beyond))
        assert own + repricing + beyond == Fraction(line.amount)
        assert abs(beyond) <= PICO
        assert sum(Fraction(tier.quantity) for tier in told.tiers) == Fraction(line.quantity)
        assert line.version == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**9))
def test_a_refusal_names_the_limit_and_an_alert_what_was_measured(seed: int) -> None:
    """Whatever is asked of whatever account; each alert has its rule, window, ordinal, value and threshold."""
    life = HeldLife(seed)
    bench, answers = life.bench, list[Decision]()
    bench.balance_rule("30")

    class Noting:
        def __call__(self, question: Question) -> Decision:
            answers.append(type(bench).ask(bench, question))
            return answers[-1]

    bench.ask = Noting()  # type: ignore[method-assign]
    for _ in range(25):
        life.step()
    bench.check("1000000", "x", hold_us=MINUTE)
    refused = [answer for answer in answers if not answer.allowed]
    assert all(answer.reason is not None and answer.binding is not None for answer in refused)
    assert refused
    for row in bench.partition.outputs.alerts:
        told = json.loads(row.body)["data"]
        assert all(told[key] is not None for key in ("rule", "window", "ordinal", "value", "threshold"))
