"""What goes on by turns, on a clock that the test holds; and how soon a cost is seen by it."""

from collections.abc import Sequence
from itertools import chain
from random import Random

import pytest

from actors.cost import CostActor
from actors.margin_actor import MarginActor
from actors.margin_store import MarginCheckpoint
from actors.ports import Outgoing
from actors.turns import OneBehindTheOther, Turns
from config.settings import CostSettings
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine, parse_line
from engine.cost.margin import RUN_KEPT_US
from engine.cost.served import Served
from tests.actors import cost_rig, test_margin_actor
from tests.engine.cost.histories import HORIZONS, KEY, PARTITION, START_US, S, history, rates_record, served_record
from tests.engine.cost.test_margin import CLOSE_US

INTERVAL_S = CostSettings().interval_s
WAIT_US = 100_000  # for an append or a commit; a turn has three of them


class Clock:
    """Moves when somebody sleeps, and calls `then` before it does."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us
        self.slept: list[float] = []

    def wall_us(self) -> int:
        return self.now_us

    def boot_s(self) -> float:
        return self.now_us / 1e6

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_us += round(seconds * 1e6)


class Few(Turns):
    """So many turns; `more` says which of them leave something to be done."""

    def __init__(self, clock: Clock, name: str, log: list[str], more: Sequence[bool]) -> None:
        super().__init__(clock, 1.0)
        self.name, self.log, self.more = name, log, list(more)
        self.time = clock

    async def turn(self) -> bool:
        self.log.append(self.name)
        self.time.now_us += 250_000
        if len(self.more) == 1:
            self.stop()
        return self.more.pop(0)


async def test_turns_begin_an_interval_apart_unless_there_is_more() -> None:
    clock, log = Clock(0), list[str]()
    await Few(clock, "a", log, [False, True, False]).run()
    assert clock.slept == [0.75, 0.0, 0.75]
    assert log == ["a", "a", "a"]


async def test_each_has_its_turn_behind_the_other_and_all_end_when_one_is_fenced() -> None:
    clock, log = Clock(0), list[str]()
    first, second = Few(clock, "a", log, [False] * 9), Few(clock, "b", log, [False, True, False, False])
    both = OneBehindTheOther(clock, 1.0, (first, second))
    assert [await both.turn() for _ in range(2)] == [False, True]
    second.fenced = True
    await both.run()
    assert log == ["a", "b", "a", "b", "a", "b"], "one turn, in which it is seen"
    assert both.fenced


class Forwarding(cost_rig.Topics):
    """What a cost actor tells is there for a margin actor at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.margin = clock, test_margin_actor.Topics()

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        self.clock.now_us += WAIT_US
        for record in records:
            for text in (record.value or b"").splitlines():
                line = parse_line(text)
                if isinstance(line, RequestLine):
                    self.margin.put(line, self.clock.now_us)
        return await super().append(records)


class Noting(test_margin_actor.Stored):
    """When each account's cost was committed to the rows."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock, self.at_us = clock, dict[str, int]()

    async def commit(self, checkpoints: Sequence[MarginCheckpoint]) -> None:
        self.clock.now_us += WAIT_US
        await super().commit(checkpoints)
        for row in chain.from_iterable(checkpoint.rows for checkpoint in checkpoints):
            if row.sums.known_cost and not row.sums.without_cost:
                self.at_us.setdefault(row.key.account, self.clock.now_us)


@pytest.mark.parametrize("seed", range(3))
async def test_a_cost_is_in_the_margin_within_an_interval_and_two_turns(seed: int) -> None:
    """Whatever the age of the window in which a request ends, and however long it ran."""
    clock, random = Clock(START_US + 60 * S), Random(seed)
    topics, rows = Forwarding(clock), Noting(clock)
    topics.put(cost_rig.KAFKA.topic_served, PARTITION, b"both", rates_record(), START_US)
    topics.arrive(history(random, 0), START_US)
    cost = CostActor(
        "a",
        [PARTITION],
        clock=clock,
        reader=topics,
        appender=topics,
        store=cost_rig.Stored(),
        control_key=KEY,
        kafka=cost_rig.KAFKA,
        horizons=HORIZONS,
        changes_kept_us=24 * HOUR_US,
        interval_s=INTERVAL_S,
    )
    margin = MarginActor(
        "a",
        (0, 1),
        clock=clock,
        reader=topics.margin,
        store=rows,
        kafka=test_margin_actor.KAFKA,
        close_us=CLOSE_US,
        runs_kept_us=RUN_KEPT_US,
        interval_s=INTERVAL_S,
    )
    both = OneBehindTheOther(clock, INTERVAL_S, (cost, margin))
    told_us: dict[str, int] = {}
    longest_us = 0
    for number in range(40):
        begun_us = clock.now_us
        await both.turn()
        end_us = max(begun_us + round(INTERVAL_S * 1e6), clock.now_us)
        for account in [each for each in told_us if each in rows.at_us]:
            longest_us = max(longest_us, rows.at_us[account] - told_us.pop(account))
        # A request ends while nobody looks: the worst moment is just behind the look.
        ended_us = begun_us + 1_000 + random.randrange(200_000)
        ran_us = random.randrange(1, 45) * S
        at = (ended_us - ran_us, ended_us - ran_us // 2, ended_us)
        record = served_record(Served(f"r-{number}", "part-a", "llama", *at, 100, output=50, account=f"acme-{number}"))
        topics.put(cost_rig.KAFKA.topic_served, PARTITION, record.key, record.value, ended_us)
        told_us[f"acme-{number}"] = ended_us
        clock.now_us = end_us
    assert len(rows.at_us) >= 39
    assert longest_us <= round(INTERVAL_S * 1e6) + 2 * 3 * WAIT_US < 2_000_000
