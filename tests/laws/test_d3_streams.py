"""Law D3, cumulative streams: of the events of one id the one with the highest seq counts, in whatever order they come."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import StreamDefinition
from tests.engine.bench import DAY, HOUR, START, Bench, document
from tests.laws.test_c1_conservation import conserved
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

Said = tuple[int, int, int, str, int]  # stream, seq, units, model, time

SAID = st.tuples(
    *(st.integers(0, 2), st.integers(0, 5), st.integers(0, 30), st.sampled_from(["x", "tiered", "third"])),
    st.integers(-20 * DAY, 4 * 60_000_000),
)


def folded(events: list[Said]) -> Bench:
    bench = Bench(replace(document(), streams={"use": StreamDefinition(30 * 86_400)}))
    bench.open()
    bench.grant("promo", "20", "promo", expires_us=START + 40 * DAY)
    bench.now += HOUR
    for stream, seq, units, model, at in events:
        bench.use(units, model, START + at, id=f"s{stream}", seq=seq)
    return bench


@settings(max_examples=60, deadline=None)
@given(st.lists(SAID, min_size=1, max_size=12, unique_by=lambda said: said[:2]), st.randoms(use_true_random=False))
def test_the_highest_seq_counts_in_any_order_and_however_often_it_comes(
    events: list[Said], source: random.Random
) -> None:
    """As if nothing else of the stream had ever been sent."""
    last = {said[0]: said for said in sorted(events)}
    alone = folded([*last.values()])
    shuffled = [*events, *source.sample(events, len(events) // 2)]
    source.shuffle(shuffled)
    bench = folded(shuffled)
    assert bench.balance() == alone.balance()
    running, expected = (
        {key: (run.quantity, run.amount) for key, run in each.account().derive().running.items() if run.quantity}
        for each in (bench, alone)
    )
    assert running == expected
    assert sum(bench.charges()) == sum(alone.charges())
    conserved(bench.account())
    assert_the_same(bench, oracle_of(bench, paranoid=True), "streams")
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
