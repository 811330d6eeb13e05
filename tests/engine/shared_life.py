"""Random lives of an account whose prices share tiers or an allowance."""

import random
from collections.abc import Sequence

from tests.engine.bench import DAY, HOUR, MINUTE, Bench


def live(bench: Bench, source: random.Random, events: int, names: Sequence[str], units: Sequence[object]) -> None:
    """Late and cancelled usage of these prices, quantity grants, agreed prices, other plans, a second version."""
    sent: list[bytes] = []
    for number in range(events):
        bench.now += source.randrange(1, 26 * HOUR)
        roll = source.random()
        if number == 25:
            bench.publish(2, bench.now + 6 * MINUTE + source.randrange(9 * DAY))
        if roll < 0.1 and sent:
            bench.correct(source.choice(sent))
        elif roll < 0.16:
            bench.sell(source.choice(("plan", "pro")), source.choice((None, bench.now + source.randrange(20 * DAY))))
        elif roll < 0.22:
            bench.grant_units(f"units-{number}", source.choice(names), "9")
        elif roll < 0.26:
            terms = source.choice((None, {"model": "per_unit", "amount": "5"}))
            ahead = bench.account().period_around(bench.now)[1]
            bench.agree(source.choice(names), terms, from_us=source.choice((None, ahead)))
        else:
            late = source.choice((0, 0, source.randrange(33 * DAY)))
            scope = {"scope": "team"} if roll < 0.5 else {}
            sent.append(bench.event(source.choice(units), source.choice(names), bench.now - late, **scope))
            bench.record(b"acme", sent[-1])
